"""A data set for a model of one's own: inputs and labels of each origin, and splits that leak nothing.

What does not belong here: making inputs and labels, which the API does as training does.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from btc_client.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Sequence

Label = Literal["volatility", "bid", "volatility_of_ticks"]
LABEL_NAMES: dict[Label, str] = {
    "volatility": "rv_1m_grid_{}m",
    "bid": "bid_{}m_bps",
    "volatility_of_ticks": "rv_5s_grid_{}m",
}
"""Names of the labels: the realized variance over the horizon in ln², from one-minute or from 5-second returns, and the log
return of the bid in bps."""
MAX_HORIZON_MIN = 60
_MINUTE_NS = 60_000_000_000


class Split(msgspec.Struct, frozen=True):
    """Rows to fit on, and later rows to judge by."""

    train: pa.Table
    test: pa.Table


class Dataset(msgspec.Struct, frozen=True):
    """Rows in the order of time. An input uses only what was known at `origin`, and a label only what came after it."""

    table: pa.Table
    """The column `origin`, then the inputs, then the labels."""
    features: tuple[str, ...]
    labels: tuple[str, ...]
    horizon_min: int
    seals: tuple[str, ...]
    """The sealed days that the rows rest on, as `day@seal`. The other days were not sealed yet, or imported."""
    feature_version: str
    embargo_min: int
    """How long before the first origin of a test the last origin of its training is, at least. It is longer than a label."""

    def splits(self, count: int) -> list[Split]:
        """A walk-forward of `count` splits: each fits on all rows before its test, without those within the embargo.

        The time is divided into `count + 1` equal parts, of which all but the first are tests. Raises `ClientError` if a
        part has no rows.
        """
        if count < 1:
            msg = f"splits({count}): there must be at least one"
            raise ClientError(msg)
        origins = self.table["origin"].cast(pa.int64())
        if not len(origins):
            raise ClientError("the data set has no rows; ask for more days")
        first, last = origins[0].as_py(), origins[-1].as_py() + 1
        borders = [first + (last - first) * part // (count + 1) for part in range(1, count + 2)]
        found = []
        for begin, end in pairwise(borders):
            train = self._between(first, begin - self.embargo_min * _MINUTE_NS + 1)
            test = self._between(begin, end)
            if not len(train) or not len(test):
                msg = f"{len(self.table)} rows are too few for {count} splits"
                raise ClientError(msg)
            found.append(Split(train, test))
        return found

    def _between(self, begin_ns: int, end_ns: int) -> pa.Table:
        origins = self.table["origin"].cast(pa.int64())
        return self.table.filter(pc.and_(pc.greater_equal(origins, begin_ns), pc.less(origins, end_ns)))


def label_names(labels: Sequence[Label], horizon_min: int) -> tuple[str, ...]:
    """The columns of labels; raises `ClientError` for others than there are."""
    unknown = [label for label in labels if label not in LABEL_NAMES]
    if unknown or not labels:
        msg = f"labels={list(labels)!r}: choose from {', '.join(LABEL_NAMES)}"
        raise ClientError(msg)
    if not 1 <= horizon_min <= MAX_HORIZON_MIN:
        msg = f"horizon={horizon_min}: a horizon is 1 to {MAX_HORIZON_MIN} minutes, and one of those of the system (BTC_HORIZONS_MIN)"
        raise ClientError(msg)
    return tuple(LABEL_NAMES[label].format(horizon_min) for label in labels)


def dataset_of(table: pa.Table, features: Sequence[str] | None, labels: Sequence[str], horizon_min: int) -> Dataset:
    """A data set of an answer of `/v1/data/dataset`."""
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    inputs = tuple(name for name in about["inputs"].split(",") if features is None or name in features)
    return Dataset(
        table=table.select(["origin", *inputs, *labels]),
        features=inputs,
        labels=tuple(labels),
        horizon_min=horizon_min,
        seals=tuple(filter(None, about["seals"].split(","))),
        feature_version=about["feature_version"],
        embargo_min=int(about["embargo_min"]),
    )
