"""The frozen model bundle: a folder with everything a forecast needs, checked at every load.

```
bundle.json      the manifest: kind, features and their version, unit, training window, scores, SHA-256 of the other files
harx.json        the log-HARX baseline (volatility only)
baselines.json   HAR, EWMA and the last five minutes (volatility), the autoregression (bid), fitted on the same window;
                 a bundle of kind har, ewma, naive or ar forecasts with it
NAME.ubj         XGBoost's own format (kind xgboost only): `trees` (volatility), `horizon_N` (bid)
entry.py         the file of a user's model, and model.pkl its pickle (`user_model`); neither is read here
net.npz          the net beside the trees (volatility of kind xgboost only); plain arrays, never pickles
golden.npz       inputs and the outputs they gave when the bundle was made; plain arrays, never pickles
```

A bundle holds every number that its forecasts need, so that a model keeps its forecasts when the recipe changes.
What does not belong here: fitting (`fitting`), trees (`trees`), and where bundles are kept (`btc_core.registry`).
"""

from __future__ import annotations

import copy
import hashlib
import io
import math
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.errors import SchemaError
from btc_core.features import catalogue, minute_columns
from btc_core.horizons import VARIABLE, text_of
from btc_core.models import intervals
from btc_core.models.baselines import Autoregression, Baselines
from btc_core.models.harx import INPUT_COLUMNS, Harx
from btc_core.models.manifest import LAYOUT, NET_MEMBER, TREES_MEMBER, Manifest, as_kind, new_manifest
from btc_core.models.model_rows import has_columns, split_rows, tree_input_names, tree_inputs
from btc_core.models.net import Net
from btc_core.models.pooling import POOLED_TREE_INPUTS, RELATIVE_FEATURES, bid_inputs, pooled_tree_inputs
from btc_core.models.trees import COMPILED_ROWS, Forest, booster_files, booster_of
from btc_core.names import (
    BASELINES,
    BID,
    BID_MODEL,
    HORIZONS_MIN,
    VOLATILITY,
    VOLATILITY_MODEL,
    Baseline,
    ModelKind,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    import xgboost

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

GOLDEN_TOLERANCE = 1e-6
"""Relative. The last digit of float32 (6e-8) may differ between machines; a wrong tree differs by 1e-2."""
GOLDEN_ROWS = 64
VOLATILITY_TREES = ("trees",)
"""File of the volatility's booster, which forecasts the headline horizon."""
NET = "net.npz"
_SIMPLE: frozenset[ModelKind] = frozenset({"har", "ewma", "naive"})
_FITTED: frozenset[ModelKind] = _SIMPLE | {"ar"}
"""The kinds that forecast with the coefficients of `baselines.json`."""
USER_FILES = ENTRY_FILE, ENTRY_MODEL = "entry.py", "model.pkl"
BUNDLE = "bundle.json"
"""File of the manifest."""
BID_TREES = tuple(f"horizon_{h}" for h in HORIZONS_MIN)
"""Files of the bid's boosters, one for each horizon."""


class VolatilityModel:
    """Forecasts the realized volatility over each horizon; holds the baselines beside the trees and the net."""

    def __init__(
        self, manifest: Manifest, harx: Harx, boosters: tuple[xgboost.Booster, ...] = (),
        baselines: Baselines | None = None, net: Net | None = None,
    ) -> None:  # fmt: skip
        self.manifest = manifest
        self.harx = harx
        self.boosters = boosters
        self.baselines = baselines
        self.net = net
        self.files: dict[str, bytes] | None = None
        """The files that it was loaded from; see `bundle_files`."""
        self.user_files: dict[str, bytes] = {}
        """`USER_FILES` of a bundle with a user's model, which are never read here; otherwise empty."""
        self._forest = Forest(boosters) if boosters else None
        self._offsets = np.asarray(manifest.offsets or (0.0,) * len(HORIZONS_MIN))

    @property
    def kind(self) -> ModelKind:
        """`xgboost`, `user`, or the name of the baseline that forecasts. All methods forecast as the stand-in of a user's model."""
        return self.manifest.served_kind

    @property
    def version(self) -> str:
        """The registry's version, or a build id."""
        return self.manifest.version

    def predict(self, matrix: Floats, columns: Singles | None = None) -> Floats:
        """σ in bps over each horizon, shape (n, horizons), non-decreasing in the horizon.

        `matrix` is (n, features) in the order of `manifest.features`, and `columns` (n, COLUMNS). A row without columns
        gets HARX's forecast; a row without any realized variance gives NaN. Raises `SchemaError` for another width.
        """
        return self.predict_both(matrix, columns)[0]

    def predict_both(self, matrix: Floats, columns: Singles | None = None) -> tuple[Floats, Floats]:
        """The forecast, and the forecast of HARX, which trees and net correct."""
        _check_width(matrix, self.manifest)
        logs = self.harx.log_variance(matrix[:, INPUT_COLUMNS])
        baseline = _sigma_bps(logs)
        if self.baselines is not None and self.manifest.kind in _SIMPLE:
            return _sigma_bps(np.log(self.baselines.variances(matrix)[self.manifest.kind])), baseline
        if self._forest is None or self.net is None or columns is None:
            return baseline, baseline
        members = self._member_logs(matrix, columns, logs)
        mean = np.asarray(sum(self.manifest.members[name].share * each for name, each in members.items()))
        five = logs[:, -1] + self.manifest.correction_factor * (mean - logs[:, -1])
        path = self._path(five, logs) + self._offsets
        return _sigma_bps(np.where(self.corrects(columns)[:, np.newaxis], path, logs)), baseline

    def corrects(self, columns: Singles) -> npt.NDArray[np.bool_]:
        """Which rows trees and net forecast, (n,); HARX alone forecasts the others."""
        return (self.manifest.kind == "xgboost") & (has_columns(columns) | (not self.manifest.needs_columns))

    def members(self, matrix: Floats, columns: Singles) -> dict[str, Floats]:
        """σ in bps, (n, horizons), by each member alone; only the headline horizon is calibrated."""
        if self._forest is None or self.net is None:
            return {}
        logs = self.harx.log_variance(matrix[:, INPUT_COLUMNS])
        members = self._member_logs(matrix, columns, logs)
        return {name: _sigma_bps(self._path(each, logs)) for name, each in members.items()}

    def _path(self, five: Floats, logs: Floats) -> Floats:
        """Ln of the variance over each horizon, (n, horizons), from that over the headline, (n,), with a part of the shape of HARX's."""
        path: Floats = five[:, np.newaxis] + self.manifest.harx_shape_share * (logs - logs[:, -1:])
        return path

    def _member_logs(self, matrix: Floats, columns: Singles, logs: Floats) -> dict[str, Floats]:
        """Ln of the variance over the headline horizon by each member, (n,)."""
        assert self._forest is not None  # noqa: S101 - the callers check it, and mypy does not see it
        assert self.net is not None  # noqa: S101 - the callers check it, and mypy does not see it
        manifest = self.manifest
        share, harx = manifest.harx_share, np.ascontiguousarray(logs[:, -1])
        start = share * harx + (1.0 - share) * manifest.level + manifest.members[TREES_MEMBER].offset
        trees: Floats = start + self._forest.margins(self.tree_inputs(matrix, columns, harx))[:, 0]
        net: Floats = harx + self.net.corrections(matrix, columns, harx) + manifest.members[NET_MEMBER].offset
        return {TREES_MEMBER: trees, NET_MEMBER: net}

    @property
    def tree_input_names(self) -> tuple[str, ...]:
        """Names of the inputs of the trees, in the order of `tree_inputs`."""
        return POOLED_TREE_INPUTS if self.manifest.pool else tree_input_names()

    def tree_inputs(self, matrix: Floats, columns: Singles, log_harx: Floats | None = None) -> Singles:
        """What the trees read of features and columns, (n, inputs): without their scale if the trees are pooled.

        `log_harx` (n,) is ln of HARX's variance over the headline horizon; it is computed unless it is given.
        """
        if not self.manifest.pool:
            return tree_inputs(matrix, columns)
        if log_harx is None:
            log_harx = np.ascontiguousarray(self.harx.log_variance(matrix[:, INPUT_COLUMNS])[:, -1])
        return pooled_tree_inputs(matrix, columns, log_harx, self.manifest.level)

    def baseline(self, matrix: Floats) -> Floats:
        """The HARX forecast, with the unit and shape of `predict`."""
        return self.predict_both(matrix)[1]

    def baseline_forecasts(self, matrix: Floats) -> dict[str, Floats]:
        """σ in bps, (n, 5), of the simple baselines beside HARX, by name; empty when the bundle has none."""
        if self.baselines is None:
            return {}
        return {name: np.sqrt(each) * 1e4 for name, each in self.baselines.variances(matrix).items()}

    @property
    def servable_baselines(self) -> tuple[Baseline, ...]:
        """The baselines that the bundle can serve: HARX alone if nothing simpler was fitted with it."""
        return BASELINES[VOLATILITY] if self.baselines is not None else BASELINES[VOLATILITY][:1]

    def as_baseline(self, kind: Baseline = "harx") -> VolatilityModel:
        """A baseline alone, which serves when the trees and the net have stopped being better.

        Raises `SchemaError` if the bundle does not have it.
        """
        return VolatilityModel(_manifest_of_baseline(self, kind), self.harx, (), self.baselines)

    def with_harx(self, harx: Harx) -> VolatilityModel:
        """The same trees and net on top of another HARX."""
        other = copy.copy(self)
        other.files = None
        other.harx = harx
        return other

    def with_manifest(self, manifest: Manifest) -> VolatilityModel:
        """The same model with another manifest; it shares the trees, which take longer to compile than HARX to fit."""
        other = copy.copy(self)
        other.files = None
        other.manifest = manifest
        other._offsets = np.asarray(manifest.offsets or (0.0,) * len(HORIZONS_MIN))  # noqa: SLF001 - a copy of this object
        return other

    def check_against_xgboost(self, matrix: Floats, columns: Singles) -> None:
        """Compare the compiled sums of the trees with XGBoost's on these rows; where they differ, XGBoost serves."""
        if self._forest is not None:
            self._forest.check_against_xgboost(self.tree_inputs(matrix, columns))

    def save(self, folder: Path, golden: Floats) -> None:
        """Write the bundle into an empty or missing folder; `golden` are the inputs of its golden batch (`golden_rows`)."""
        matrix, columns = split_rows(golden)
        sigma, baseline = self.predict_both(matrix, columns)
        batch: dict[str, Any] = {"matrix": matrix, "columns": columns, "expected": sigma, "baseline": baseline}
        files = {"harx.json": self.harx.to_json(), **booster_files(self.boosters, VOLATILITY_TREES)}
        if self.net is not None:
            files[NET] = self.net.to_bytes()
        if self.baselines is not None:
            files["baselines.json"] = msgspec.json.encode(self.baselines)
        files |= self.user_files
        _write(folder, self.manifest, files, batch)


def served_kinds(model: VolatilityModel, columns: Singles) -> list[ModelKind]:
    """What `predict` makes of each row: the kind of the manifest, or `harx` where a row has too few columns for trees and net."""
    kind = model.manifest.kind
    if kind != "xgboost":
        return [kind] * len(columns)
    return [kind if corrected else "harx" for corrected in model.corrects(columns).tolist()]


class BidModel:
    """Forecasts the log return of the bid over each horizon as λ · f(features) · σ, where f are trees."""

    def __init__(
        self,
        manifest: Manifest,
        boosters: tuple[xgboost.Booster, ...] = (),
        autoregression: Autoregression | None = None,
    ) -> None:
        self.manifest = manifest
        self.boosters = boosters
        self.autoregression = autoregression
        self.files: dict[str, bytes] | None = None
        """The files that it was loaded from; see `bundle_files`."""
        self._forest = Forest(boosters) if boosters else None
        self._shrinkage = np.asarray(manifest.shrinkage or (0.0,) * len(HORIZONS_MIN))

    @property
    def kind(self) -> ModelKind:
        """`xgboost`, or the name of the baseline that forecasts: `random_walk` when every λ is 0."""
        return self.manifest.kind

    @property
    def version(self) -> str:
        """The registry's version, or a build id."""
        return self.manifest.version

    def predict(self, matrix: Floats, sigma_bps: Floats) -> Floats:
        """Log returns of the bid in bps over each horizon, shape (n, horizons); all 0 for the random walk.

        `matrix` is (n, features) in the order of `manifest.features`, `sigma_bps` (n, 5) from the volatility model.
        Raises `SchemaError` for other shapes.
        """
        _check_width(matrix, self.manifest)
        if sigma_bps.shape != (len(matrix), len(HORIZONS_MIN)):
            msg = f"sigma_bps has shape {sigma_bps.shape}, expected {(len(matrix), len(HORIZONS_MIN))}"
            raise SchemaError(msg)
        if self.kind == "ar" and self.autoregression is not None:
            return self.autoregression.returns_bps(matrix)
        if self._forest is None:
            return np.zeros_like(sigma_bps)
        return self._shrinkage * self._forest.margins(self.tree_inputs(matrix, sigma_bps)) * sigma_bps

    @property
    def tree_input_names(self) -> tuple[str, ...]:
        """Names of the inputs of the trees, in the order of `tree_inputs`."""
        return RELATIVE_FEATURES if self.manifest.pool else self.manifest.features

    def tree_inputs(self, matrix: Floats, sigma_bps: Floats) -> Floats:
        """What the trees read of the features, (n, inputs): without their scale if the trees are pooled."""
        return bid_inputs(matrix, sigma_bps) if self.manifest.pool else matrix

    def baseline_forecasts(self, matrix: Floats) -> dict[str, Floats]:
        """Log returns in bps, (n, 5), of the baselines beside the random walk, by name; empty when nothing was fitted."""
        return {} if self.autoregression is None else {"ar": self.autoregression.returns_bps(matrix)}

    @property
    def servable_baselines(self) -> tuple[Baseline, ...]:
        """The baselines that the bundle can serve: the random walk alone if no autoregression was fitted."""
        return BASELINES[BID] if self.autoregression is not None else BASELINES[BID][:1]

    def as_baseline(self, kind: Baseline = "random_walk") -> BidModel:
        """A baseline alone, which serves when the trees have stopped being better.

        Raises `SchemaError` if the bundle does not have it.
        """
        return BidModel(_manifest_of_baseline(self, kind), (), self.autoregression)

    def check_against_xgboost(self, matrix: Floats, sigma_bps: Floats) -> None:
        """Compare the compiled sums of the trees with XGBoost's; where they differ, XGBoost serves."""
        if self._forest is not None:
            self._forest.check_against_xgboost(self.tree_inputs(matrix, sigma_bps))

    def save(self, folder: Path, golden: Floats) -> None:
        """Write the bundle into an empty or missing folder; `golden` are the inputs of its golden batch (`golden_rows`)."""
        matrix, _columns = split_rows(golden)
        sigma = np.tile(5.0 * np.sqrt(np.asarray(HORIZONS_MIN, np.float64)), (len(golden), 1))
        batch = {"matrix": matrix, "sigma_bps": sigma, "expected": self.predict(matrix, sigma)}
        files = booster_files(self.boosters, BID_TREES)
        if self.autoregression is not None:
            files["baselines.json"] = msgspec.json.encode(self.autoregression)
        _write(folder, self.manifest, files, batch)


def _manifest_of_baseline(model: VolatilityModel | BidModel, kind: Baseline) -> Manifest:
    if kind not in model.servable_baselines:
        raise SchemaError(f"{model.manifest.name} {model.version} has no baseline {kind} to serve")
    return as_kind(model.manifest, kind)


def start_quantiles(model: VolatilityModel | BidModel) -> Floats:
    """The quantiles at which the model's intervals start, (5, 8): its own, or a normal distribution's if it has none."""
    if model.manifest.quantiles:
        return intervals.with_tails(model.manifest.quantiles, model.manifest.tails or None)
    return np.tile(np.asarray(intervals.NORMAL), (len(HORIZONS_MIN), 1))


def bid_path(bid: float | Floats, returns_bps: Floats) -> Floats:
    """The forecast bid · exp(r / 10⁴), USD, in the shape of `returns_bps` (n, 5); `bid` is one number or (n, 1)."""
    return np.asarray(bid * np.exp(returns_bps / 1e4))


def random_walk_model() -> BidModel:
    """The bid model that forecasts no change."""
    return BidModel(new_manifest(BID_MODEL, "random_walk", shrinkage=(0.0,) * len(HORIZONS_MIN)))


def golden_rows(rows: Floats) -> Floats:
    """The inputs of a golden batch: up to `GOLDEN_ROWS` rows spread over `rows`, and one of zeros.

    `rows` are (n, features), or `Frame.sample`, which has the minute columns beside the features.
    """
    chosen = rows[np.linspace(0, len(rows) - 1, min(GOLDEN_ROWS, len(rows))).astype(int)] if len(rows) else rows
    return np.ascontiguousarray(np.vstack([chosen, np.zeros((1, rows.shape[1]))]))


def load_bundle(folder: Path, version: str | None = None) -> VolatilityModel | BidModel:
    """Load a bundle and check it; the registry's `version` replaces its build id.

    Raises `SchemaError` when a file is missing or altered, when the features are not those of this process, or when the
    golden batch gives other numbers.
    """
    manifest, contents = _read(folder)
    model = _model_of(folder, manifest, contents, version)
    model.files = contents
    return model


def bundle_files(model: VolatilityModel | BidModel) -> dict[str, bytes]:
    """The files of a model by name: those that it was loaded from, or those of a bundle that is made here.

    SHA-256 of `bundle.json` identifies the model, because it names the hashes of the other files.
    """
    if model.files is None:
        with tempfile.TemporaryDirectory(prefix="btc-bundle-") as folder:
            model.save(
                Path(folder), golden_rows(np.empty((0, len(catalogue.MODEL_FEATURES) + len(minute_columns.COLUMNS))))
            )
            model.files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return model.files


def _model_of(
    folder: Path, manifest: Manifest, contents: dict[str, bytes], version: str | None
) -> VolatilityModel | BidModel:
    if version is not None:
        manifest = msgspec.structs.replace(manifest, version=version)
    wanted = VOLATILITY_TREES if manifest.name == VOLATILITY_MODEL else BID_TREES
    try:
        boosters = tuple(booster_of(contents[f"{name}.ubj"]) for name in wanted if f"{name}.ubj" in contents)
        with np.load(io.BytesIO(contents["golden.npz"]), allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
        harx = Harx.from_json(contents["harx.json"]) if manifest.name == VOLATILITY_MODEL else None
        simple = contents.get("baselines.json")
        baselines: Any = simple and msgspec.json.decode(simple, type=Baselines if harx else Autoregression)
        net = Net.from_bytes(contents[NET]) if NET in contents else None
        user_files = {name: contents[name] for name in (USER_FILES if manifest.user_entry else ())}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        msg = f"the bundle in {folder} cannot be read: {error}"
        raise SchemaError(msg) from error
    if len(boosters) != (len(wanted) if manifest.kind == "xgboost" else 0):
        msg = f"the bundle in {folder} is of kind {manifest.kind} and has {len(boosters)} boosters"
        raise SchemaError(msg)
    if manifest.kind in _FITTED and baselines is None:
        msg = f"the bundle in {folder} is of kind {manifest.kind} and has no baselines.json"
        raise SchemaError(msg)
    if harx is None:
        return _checked_bid_model(folder, BidModel(manifest, boosters, baselines), golden)
    if (net is not None) != (manifest.kind == "xgboost"):
        msg = f"the bundle in {folder} is of kind {manifest.kind} and {'has no' if net is None else 'has a'} net"
        raise SchemaError(msg)
    model = VolatilityModel(manifest, harx, boosters, baselines, net)
    model.user_files = user_files
    return _checked_volatility_model(folder, model, golden)


def _checked_bid_model(folder: Path, model: BidModel, golden: dict[str, Floats]) -> BidModel:
    """The model, once XGBoost and the compiled code have both reproduced the golden batch; the latter takes few rows."""
    model.check_against_xgboost(golden["matrix"], golden["sigma_bps"])
    for rows in (slice(None), slice(COMPILED_ROWS)):
        found = model.predict(golden["matrix"][rows], golden["sigma_bps"][rows])
        _check_reproduced(folder, found, golden["expected"][rows])
    return model


def _checked_volatility_model(folder: Path, model: VolatilityModel, golden: dict[str, Any]) -> VolatilityModel:
    """The model, once XGBoost and the compiled code have both reproduced the golden batch; the latter takes few rows."""
    model.check_against_xgboost(golden["matrix"], golden["columns"])
    for rows in (slice(None), slice(COMPILED_ROWS)):
        sigma, baseline = model.predict_both(golden["matrix"][rows], golden["columns"][rows])
        _check_reproduced(folder, sigma, golden["expected"][rows])
        _check_reproduced(folder, baseline, golden["baseline"][rows])
    return model


def _sigma_bps(log_variance: Floats) -> Floats:
    return np.maximum.accumulate(np.exp(0.5 * log_variance), axis=1) * 1e4


def _check_width(matrix: Floats, manifest: Manifest) -> None:
    if matrix.ndim != 2 or matrix.shape[1] != len(manifest.features):
        msg = f"{manifest.name} takes {len(manifest.features)} features a row, got an array of shape {matrix.shape}"
        raise SchemaError(msg)


def _write(folder: Path, manifest: Manifest, contents: dict[str, bytes], golden: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **golden)
    everything = {**contents, "golden.npz": buffer.getvalue()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in everything.items():
        (folder / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in everything.items()}
    text = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, files=digests)), indent=2)
    (folder / BUNDLE).write_bytes(text)


def _read(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, checked against this process, and the other files, checked against the manifest."""
    try:
        text = (folder / BUNDLE).read_bytes()
        manifest = msgspec.json.decode(text, type=Manifest)
        contents = {name: (folder / name).read_bytes() for name in manifest.files if "/" not in name}
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"the bundle in {folder} cannot be read: {error}"
        raise SchemaError(msg) from error
    if manifest.layout != LAYOUT or manifest.name not in {VOLATILITY_MODEL, BID_MODEL}:
        msg = (
            f"the bundle in {folder} is {manifest.name!r} of layout {manifest.layout}, this process reads layout {LAYOUT}; "
            "train again"
        )
        raise SchemaError(msg)
    if manifest.feature_version != catalogue.FEATURE_VERSION or manifest.features != catalogue.MODEL_FEATURES:
        msg = (
            f"{manifest.name} {manifest.version} was trained on feature set {manifest.feature_version} "
            f"({len(manifest.features)} features), this process computes {catalogue.FEATURE_VERSION} "
            f"({len(catalogue.MODEL_FEATURES)}); train again"
        )
        raise SchemaError(msg)
    if manifest.horizons_min != HORIZONS_MIN:
        msg = (
            f"{manifest.name} {manifest.version} forecasts {text_of(manifest.horizons_min)} minutes, and {VARIABLE} is "
            f"{text_of(HORIZONS_MIN)}; train again"
        )
        raise SchemaError(msg)
    if manifest.columns_version != minute_columns.COLUMNS_VERSION:
        msg = (
            f"{manifest.name} {manifest.version} was trained on minute columns {manifest.columns_version}, this process "
            f"computes {minute_columns.COLUMNS_VERSION}; train again"
        )
        raise SchemaError(msg)
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != manifest.files[name]:
            msg = f"{name} in {folder} is not the file that the manifest names: its SHA-256 differs"
            raise SchemaError(msg)
    return manifest, contents | {BUNDLE: text}


def _check_reproduced(folder: Path, found: Floats, expected: Floats) -> None:
    if found.shape == expected.shape and np.allclose(found, expected, GOLDEN_TOLERANCE, atol=1e-9, equal_nan=True):
        return
    worst = float(np.nanmax(np.abs(found - expected))) if found.shape == expected.shape else math.nan
    msg = f"the bundle in {folder} does not reproduce its golden batch (largest difference {worst:g})"
    raise SchemaError(msg)
