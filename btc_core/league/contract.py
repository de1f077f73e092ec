"""What a user's model is: a Python file with the functions `fit` and `predict`, and what these get and return.

The whole contract:

```
def fit(dataset):               # a Dataset: named columns of past rows, and the outcome of each
    ...
    return model                # anything that pickle can store

def predict(model, rows):       # Rows: the same columns, without outcomes
    ...
    return sigma_bps            # (len(rows), horizons): σ of the log return over each of `rows.horizons_min`, bps
    # or: return sigma_bps, quantiles_bps   (len(rows), horizons, 6): the 5, 10, 25, 75, 90 and 95 % quantiles, too
    # or: return quantiles_bps              σ is derived from them (`sigma_of`), and the loss judges that σ
```

`predict` must treat each row alone: it gets thousands of rows in a test and a single one in the live system.
What does not belong here: the process in which these functions run (`child`, `process`), and the check of a file (`check`).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, overload

import numpy as np

from btc_core.errors import InvalidInput
from btc_core.names import HORIZONS_MIN, SCORED_QUANTILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pandas as pd

    Floats: TypeAlias = npt.NDArray[np.float64]
    Longs: TypeAlias = npt.NDArray[np.int64]

_SHAPE = f"(rows, {len(HORIZONS_MIN)})"
_QUANTILE_SHAPE = f"(rows, {len(HORIZONS_MIN)}, {len(SCORED_QUANTILES)})"


@dataclass(frozen=True)
class Rows:
    """Rows of inputs, one for each minute close at which a forecast is made.

    A value that was unknown at the close is NaN. Inputs of the order book and of a leading market, for example, are NaN in
    rows that were made of minute bars alone.
    """

    names: tuple[str, ...]
    """The inputs in the order of the columns: features of the stream, then columns of closed minute bars."""
    matrix: Floats
    """(n, inputs)."""
    origin_ns: Longs
    """(n,); the minute closes, ns since 1970 (UTC). While the model serves, the exchange time of the newest event in each row."""

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def horizons_min(self) -> tuple[int, ...]:
        """The horizons of the system in minutes, ascending: 1 to 5 unless `BTC_HORIZONS_MIN` names others."""
        return HORIZONS_MIN

    @overload
    def __getitem__(self, names: str) -> Floats: ...

    @overload
    def __getitem__(self, names: Sequence[str]) -> Floats: ...

    def __getitem__(self, names: str | Sequence[str]) -> Floats:
        """One column by its name, (n,), or several, (n, names)."""
        places = [self._place(name) for name in ([names] if isinstance(names, str) else names)]
        found = np.asarray(self.matrix[:, places], np.float64)
        return found[:, 0] if isinstance(names, str) else found

    def to_pandas(self) -> pd.DataFrame:
        """The inputs as a data frame whose index is the time of the closes."""
        import pandas as pd  # noqa: PLC0415 - 280 ms and 40 MB in every process that does not need it

        return pd.DataFrame(self.matrix, pd.to_datetime(self.origin_ns, utc=True), list(self.names))

    def _place(self, name: str) -> int:
        if name not in self.names:
            near = ", ".join(each for each in self.names if name[:6] in each) or ", ".join(self.names[:6]) + ", …"
            msg = f"there is no input {name!r}; similar names: {near}"
            raise KeyError(msg)
        return self.names.index(name)


@dataclass(frozen=True)
class Dataset(Rows):
    """Past rows with their outcomes: the rows on which the models of the package are trained."""

    realized_variance: Floats
    """(n, horizons), ln²: the sum of squared one-minute log returns over each of `horizons_min`. It is never 0: values below the
    second percentile are raised to it, as for every other model."""
    symbol: str

    @property
    def sigma_bps(self) -> Floats:
        """(n, horizons): the root of `realized_variance` in bps, which is what `predict` forecasts."""
        return np.asarray(np.sqrt(self.realized_variance) * 1e4)


Forecast: TypeAlias = "Floats | tuple[Floats, Floats]"
"""σ in bps, (n, horizons), alone or with its quantiles in bps, (n, horizons, 6), or these quantiles alone."""


class Entry(Protocol):
    """A module that is a model of the league."""

    def fit(self, dataset: Dataset, /) -> Any:
        """Learn from past rows; returns anything that pickle can store."""
        ...

    def predict(self, model: Any, rows: Rows, /) -> Forecast:
        """Forecast each row alone. QLIKE rewards the root of the mean of the variance, which lies above its median."""
        ...


class CheckedForecast(NamedTuple):
    """A forecast that keeps the contract."""

    sigma_bps: Floats
    """(n, horizons)."""
    quantiles_bps: Floats | None
    """(n, horizons, 6); None if the model gives none, and then it has neither CRPS nor coverage."""
    is_sigma_derived: bool
    """Whether σ follows from the quantiles, because the model gives nothing else."""


def checked(forecast: Any, rows: int) -> CheckedForecast:
    """What `predict` returned: σ, or σ and quantiles, or quantiles alone; raises `InvalidInput` if it breaks the contract."""
    if isinstance(forecast, tuple) and len(forecast) != 2:
        msg = f"predict returned a tuple of {len(forecast)}; return σ, or quantiles, or the tuple (sigma, quantiles)"
        raise InvalidInput(msg)
    sigma, quantiles = forecast if isinstance(forecast, tuple) else (forecast, None)
    if quantiles is None and sigma is None:
        raise InvalidInput("predict returned None; return σ, or quantiles, or the tuple (sigma, quantiles)")
    if quantiles is None and np.ndim(sigma) == 3:
        sigma, quantiles = None, sigma
    bounds = None if quantiles is None else _bounds(quantiles, rows)
    if sigma is not None:
        return CheckedForecast(_array("σ", sigma, (rows, len(HORIZONS_MIN)), _SHAPE), bounds, is_sigma_derived=False)
    assert bounds is not None  # noqa: S101 - one of both is given
    return CheckedForecast(sigma_of(bounds), bounds, is_sigma_derived=True)


def sigma_of(quantiles_bps: Floats) -> Floats:
    """σ (n, horizons) of the lognormal distribution that is nearest to quantiles (n, horizons, 6) in logs, by least squares.

    σ is the root of the mean of the variance, which QLIKE rewards. A distribution with heavier tails has a higher one, so a model
    that knows its σ should return it.
    """
    logs, scores = np.log(quantiles_bps), np.array([NormalDist().inv_cdf(quantile) for quantile in SCORED_QUANTILES])
    spread = logs @ scores / (scores @ scores)
    return np.asarray(np.exp(logs.mean(axis=-1) + np.square(spread)))


def _bounds(quantiles: Any, rows: int) -> Floats:
    bounds = _array("quantiles", quantiles, (rows, len(HORIZONS_MIN), len(SCORED_QUANTILES)), _QUANTILE_SHAPE)
    if (np.diff(bounds, axis=2) < 0.0).any():
        raise InvalidInput("predict returned quantiles that do not ascend; sort them along the last axis")
    return bounds


def _array(what: str, given: Any, shape: tuple[int, ...], words: str) -> Floats:
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        msg = f"predict must return numbers of the shape {words} for the {what}, and returned {type(given).__name__}: {error}"
        raise InvalidInput(msg) from error
    if values.shape != shape:
        msg = f"predict returned the shape {values.shape} for the {what} of {shape[0]} rows; {shape} is needed, {words}"
        raise InvalidInput(msg)
    bad = ~(np.isfinite(values) & (values > 0.0))
    if bad.any():
        row = int(np.argmax(bad.reshape(shape[0], -1).any(axis=1)))
        value = values[row][bad[row]].ravel()[0]
        msg = (
            f"predict returned {value} for the {what} of row {row}, and must return finite values above 0; "
            f"{int(bad.sum())} of {bad.size} values are not. Inputs may be NaN: fill them before you use them"
        )
        raise InvalidInput(msg)
    return values
