"""The frozen model bundle: a folder with everything a forecast needs, refused unless it proves itself at every load.

```
bundle.json      the manifest: kind, features and their version, unit, training window, scores, SHA-256 of other files
harx.json        the log-HARX baseline (volatility only)
horizon_N.ubj    one XGBoost booster per horizon, XGBoost's own format (kind xgboost only)
golden.npz       inputs and the outputs they gave when the bundle was made; plain arrays, never pickles
```

What does not belong here: fitting boosters (`btc_assets.training`), and where bundles are kept (`registry`).
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from btc_core import features
from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.errors import SchemaError
from btc_core.harx import INPUTS, Harx, fit_harx
from btc_core.targets import BID_TARGETS, HORIZONS_MIN, RV_TARGETS, close_times_ns, realized_variance

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import xgboost

    Floats = npt.NDArray[np.float64]

VOLATILITY_MODEL = "volatility-model"
BID_MODEL = "bid-price-model"
LAYOUT = 1
"""Of the folder; raise it when files or their meaning change."""
GOLDEN_TOLERANCE = 1e-6
"""Relative; boosters compute in float32, whose last digit (6e-8) may differ between machines. A wrong tree: 1e-2."""
GOLDEN_ROWS = 64
WALKED_ROWS = 8
"""Up to this many rows are walked in numpy, more go to XGBoost: about where the two cost the same."""

Kind = Literal["xgboost", "harx", "random_walk"]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is; `bundle.json`."""

    layout: int = LAYOUT
    name: str
    kind: Kind
    version: str
    """Of the registry when it came from there, else a build id."""
    created_ns: int
    feature_version: str = features.FEATURE_VERSION
    features: tuple[str, ...] = features.MODEL_FEATURES
    targets: tuple[str, ...]
    unit: str
    trained_from_ns: int = 0
    """First and last origin of the training window; 0 when nothing was fitted."""
    trained_to_ns: int = 0
    train_rows: int = 0
    shrinkage: tuple[float, ...] = ()
    """λ per horizon of the bid model; 0 is the random walk."""
    scores: dict[str, float] = {}
    """Out of sample, by `block/model/metric`."""
    files: dict[str, str] = {}


class VolatilityModel:
    """Forecasts the realized volatility of the next 1…5 minutes; holds the HARX baseline beside the boosters."""

    def __init__(self, manifest: Manifest, harx: Harx, boosters: tuple[xgboost.Booster, ...] = ()) -> None:
        self.manifest = manifest
        self.harx = harx
        self._boosters = boosters
        self._forest = Forest(boosters) if boosters else None
        self._harx_columns = [manifest.features.index(name) for name in INPUTS]

    @property
    def kind(self) -> Kind:
        """`xgboost`, or `harx` when the baseline serves."""
        return self.manifest.kind

    @property
    def version(self) -> str:
        """Registry version or build id."""
        return self.manifest.version

    def predict(self, matrix: Floats) -> Floats:
        """σ in bps over the next 1…5 min, shape (n, 5), non-decreasing in the horizon.

        `matrix` is (n, features) in the order of `manifest.features`; a row without any realized variance gives NaN.
        Raises `SchemaError` for another width.
        """
        _check_width(matrix, self.manifest)
        logs = self.harx.log_variance(matrix[:, self._harx_columns])
        return _sigma_bps(logs + self._forest.margins(matrix) if self._forest else logs)

    def baseline(self, matrix: Floats) -> Floats:
        """The HARX forecast, same unit and shape as `predict`."""
        _check_width(matrix, self.manifest)
        return _sigma_bps(self.harx.log_variance(matrix[:, self._harx_columns]))

    def save(self, folder: Path, golden: Floats) -> None:
        """Write the bundle into an empty or missing folder; `golden` (n, features) are the inputs of its proof."""
        proof = {"matrix": golden, "expected": self.predict(golden), "baseline": self.baseline(golden)}
        _write(folder, self.manifest, {"harx.json": self.harx.to_json(), **_booster_files(self._boosters)}, proof)


class BidModel:
    """Forecasts the log return of the bid over the next 1…5 minutes as λ · f(features) · σ."""

    def __init__(self, manifest: Manifest, boosters: tuple[xgboost.Booster, ...] = ()) -> None:
        self.manifest = manifest
        self._boosters = boosters
        self._forest = Forest(boosters) if boosters else None
        self._shrinkage = np.asarray(manifest.shrinkage or (0.0,) * len(HORIZONS_MIN))

    @property
    def kind(self) -> Kind:
        """`xgboost`, or `random_walk` when every λ is 0."""
        return self.manifest.kind

    @property
    def version(self) -> str:
        """Registry version or build id."""
        return self.manifest.version

    def predict(self, matrix: Floats, sigma_bps: Floats) -> Floats:
        """Log returns of the bid in bps over the next 1…5 min, shape (n, 5); all 0 for the random walk.

        `matrix` is (n, features) in the order of `manifest.features`, `sigma_bps` (n, 5) from the volatility model.
        Raises `SchemaError` for other shapes.
        """
        _check_width(matrix, self.manifest)
        if sigma_bps.shape != (len(matrix), len(HORIZONS_MIN)):
            msg = f"sigma_bps has shape {sigma_bps.shape}, expected {(len(matrix), len(HORIZONS_MIN))}"
            raise SchemaError(msg)
        if self._forest is None:
            return np.zeros_like(sigma_bps)
        return self._shrinkage * self._forest.margins(matrix) * sigma_bps

    def save(self, folder: Path, golden: Floats) -> None:
        """Write the bundle into an empty or missing folder; `golden` (n, features) are the inputs of its proof."""
        sigma = np.tile(5.0 * np.sqrt(np.asarray(HORIZONS_MIN, np.float64)), (len(golden), 1))
        proof = {"matrix": golden, "sigma_bps": sigma, "expected": self.predict(golden, sigma)}
        _write(folder, self.manifest, _booster_files(self._boosters), proof)


class Forest:
    """What the boosters of a bundle add up to: single rows walk all trees at once in numpy, batches go to XGBoost.

    Five calls of `inplace_predict` cost a millisecond for one row, almost all of it overhead; walking costs a tenth of it.
    Both give the same float32 to the last bit: the same comparisons, and leaves added in the same order.
    """

    def __init__(self, boosters: tuple[xgboost.Booster, ...]) -> None:
        self._boosters = boosters
        grown = [_trees(booster) for booster in boosters]
        self._trees_each = [len(trees) for trees in grown]
        trees = [tree for each in grown for tree in each]
        sizes = [len(tree["left_children"]) for tree in trees]
        self._roots = np.cumsum([0, *sizes[:-1]])
        first = np.repeat(self._roots, sizes)
        left, right, default_left = (
            np.concatenate([np.asarray(tree[key], np.int64) for tree in trees])
            for key in ("left_children", "right_children", "default_left")
        )
        leaf, own = left == -1, np.arange(len(left))
        self._left = np.where(leaf, own, first + left)  # a leaf leads to itself
        self._right = np.where(leaf, own, first + right)
        self._missing = np.where(default_left == 1, self._left, self._right)
        self._feature = np.where(leaf, 0, np.concatenate([tree["split_indices"] for tree in trees]).astype(np.int64))
        self._value = np.concatenate([np.asarray(tree["split_conditions"], np.float32) for tree in trees])
        self._depth = 0
        reached = self._roots
        while not leaf[reached].all():
            reached = np.unique(np.concatenate([self._left[reached], self._right[reached]]))
            self._depth += 1

    def margins(self, matrix: Floats) -> Floats:
        """Sum of the leaves of each booster, shape (n, boosters), on one thread; `matrix` is (n, features)."""
        inputs = np.ascontiguousarray(matrix, np.float32)
        if len(inputs) <= WALKED_ROWS:
            return np.array([self._walk(row) for row in inputs]).reshape(len(inputs), len(self._boosters))
        margins = np.empty((len(inputs), len(self._boosters)))
        for column, booster in enumerate(self._boosters):
            margins[:, column] = booster.inplace_predict(inputs, predict_type="margin", validate_features=False)
        return margins

    def _walk(self, row: npt.NDArray[np.float32]) -> list[float]:
        node = self._roots
        for _ in range(self._depth):
            seen = row[self._feature[node]]
            chosen = np.where(seen < self._value[node], self._left[node], self._right[node])
            node = np.where(np.isnan(seen), self._missing[node], chosen)
        leaves = self._value[node]
        sums, start = [], 0
        for count in self._trees_each:
            sums.append(float(np.add.accumulate(leaves[start : start + count])[-1]))
            start += count
        return sums


def bid_path(bid: float | Floats, returns_bps: Floats) -> Floats:
    """The served path bid · exp(r / 10⁴), USD, in the shape of `returns_bps` (n, 5); `bid` one number or (n, 1)."""
    return np.asarray(bid * np.exp(returns_bps / 1e4))


def new_manifest(name: str, kind: Kind, **more: Any) -> Manifest:
    """A manifest of this feature set, stamped now, with a build id as its version."""
    created = now_ns()
    volatility = name == VOLATILITY_MODEL
    return Manifest(
        name=name,
        kind=kind,
        version=f"{kind}-{created // 1_000_000_000}",
        created_ns=created,
        targets=RV_TARGETS if volatility else BID_TARGETS,
        unit="bps of σ, cumulative over the horizon" if volatility else "bps of log return of the bid",
        **more,
    )


def harx_bundle(bars: npt.NDArray[Any]) -> VolatilityModel:
    """The flagged HARX baseline (kind `harx`) from a few hours of minute bars, for a cold start.

    `bars` of dtype `bars.BARS`, sorted. Raises `SchemaError` when there are too few (about an hour of labelled bars).
    """
    from btc_core.replay import bar_features  # noqa: PLC0415 - numba is slow to import, and only this needs it

    matrix = features.matrix(bar_features(bars))
    origins_ns = close_times_ns(bars["ts_ns"])
    realized = realized_variance(origins_ns, bars["close"])
    inputs = matrix[:, [features.MODEL_FEATURES.index(name) for name in INPUTS]]
    days = (int(origins_ns[-1]) - int(origins_ns[0])) / NS_PER_DAY if len(origins_ns) else 0.0
    try:
        harx = fit_harx(inputs, realized, days)
    except ValueError as error:
        msg = f"too few minute bars for the baseline: {error}"
        raise SchemaError(msg) from error
    window = {"trained_from_ns": int(origins_ns[0]), "trained_to_ns": int(origins_ns[-1]), "train_rows": len(bars)}
    return VolatilityModel(new_manifest(VOLATILITY_MODEL, "harx", **window), harx)


def random_walk_model() -> BidModel:
    """The bid model that forecasts no change."""
    return BidModel(new_manifest(BID_MODEL, "random_walk", shrinkage=(0.0,) * len(HORIZONS_MIN)))


def golden_rows(matrix: Floats) -> Floats:
    """Up to `GOLDEN_ROWS` rows spread over `matrix`, and one of zeros: the inputs of a bundle's proof."""
    chosen = (
        matrix[np.linspace(0, len(matrix) - 1, min(GOLDEN_ROWS, len(matrix))).astype(int)] if len(matrix) else matrix
    )
    return np.ascontiguousarray(np.vstack([chosen, np.zeros((1, len(features.MODEL_FEATURES)))]))


def load_bundle(folder: Path, version: str | None = None) -> VolatilityModel | BidModel:
    """Load and prove a bundle; `version` (of the registry) replaces its build id.

    Raises `SchemaError` when a file is missing or altered, the features are not those of this process, or the golden
    batch gives other numbers.
    """
    manifest, contents = _read(folder)
    if version is not None:
        manifest = msgspec.structs.replace(manifest, version=version)
    try:
        boosters = tuple(
            _booster(contents[name]) for name in (f"horizon_{h}.ubj" for h in HORIZONS_MIN) if name in contents
        )
        with np.load(io.BytesIO(contents["golden.npz"]), allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
        harx = Harx.from_json(contents["harx.json"]) if manifest.name == VOLATILITY_MODEL else None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        msg = f"the bundle in {folder} cannot be read: {error}"
        raise SchemaError(msg) from error
    if (manifest.kind == "xgboost") != (len(boosters) == len(HORIZONS_MIN)):
        msg = f"the bundle in {folder} is of kind {manifest.kind} and has {len(boosters)} boosters"
        raise SchemaError(msg)
    if harx is None:
        bid = BidModel(manifest, boosters)
        _prove(folder, bid.predict(golden["matrix"], golden["sigma_bps"]), golden["expected"])
        few = slice(WALKED_ROWS)
        _prove(folder, bid.predict(golden["matrix"][few], golden["sigma_bps"][few]), golden["expected"][few])
        return bid
    model = VolatilityModel(manifest, harx, boosters)
    _prove(folder, model.predict(golden["matrix"]), golden["expected"])
    _prove(folder, model.predict(golden["matrix"][:WALKED_ROWS]), golden["expected"][:WALKED_ROWS])
    _prove(folder, model.baseline(golden["matrix"]), golden["baseline"])
    return model


def _sigma_bps(log_variance: Floats) -> Floats:
    return np.maximum.accumulate(np.exp(0.5 * log_variance), axis=1) * 1e4


def _check_width(matrix: Floats, manifest: Manifest) -> None:
    if matrix.ndim != 2 or matrix.shape[1] != len(manifest.features):
        msg = f"{manifest.name} takes {len(manifest.features)} features a row, got an array of shape {matrix.shape}"
        raise SchemaError(msg)


def _booster(data: bytes) -> xgboost.Booster:
    import xgboost  # noqa: PLC0415 - half a second to import; the baselines do without

    try:
        booster = xgboost.Booster(model_file=bytearray(data))
    except xgboost.core.XGBoostError as error:
        msg = f"not an XGBoost model: {str(error).splitlines()[0]}"
        raise ValueError(msg) from error
    booster.set_param({"nthread": 1})
    return booster


def _trees(booster: xgboost.Booster) -> list[dict[str, Any]]:
    model = msgspec.json.decode(bytes(booster.save_raw(raw_format="json")))
    return list(model["learner"]["gradient_booster"]["model"]["trees"])


def _booster_files(boosters: tuple[xgboost.Booster, ...]) -> dict[str, bytes]:
    return {
        f"horizon_{h}.ubj": bytes(booster.save_raw(raw_format="ubj"))
        for h, booster in zip(HORIZONS_MIN, boosters, strict=False)
    }


def _write(folder: Path, manifest: Manifest, contents: dict[str, bytes], golden: dict[str, Floats]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **golden)
    everything = {**contents, "golden.npz": buffer.getvalue()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in everything.items():
        (folder / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in everything.items()}
    text = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, files=digests)), indent=2)
    (folder / "bundle.json").write_bytes(text)


def _read(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, checked against this process, and the other files, checked against the manifest."""
    try:
        manifest = msgspec.json.decode((folder / "bundle.json").read_bytes(), type=Manifest)
        contents = {name: (folder / name).read_bytes() for name in manifest.files if "/" not in name}
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"the bundle in {folder} cannot be read: {error}"
        raise SchemaError(msg) from error
    if manifest.layout != LAYOUT or manifest.name not in {VOLATILITY_MODEL, BID_MODEL}:
        msg = f"the bundle in {folder} is {manifest.name!r} of layout {manifest.layout}, expected layout {LAYOUT}"
        raise SchemaError(msg)
    if manifest.feature_version != features.FEATURE_VERSION or manifest.features != features.MODEL_FEATURES:
        msg = (
            f"{manifest.name} {manifest.version} was trained on feature set {manifest.feature_version} "
            f"({len(manifest.features)} features), this process computes {features.FEATURE_VERSION} "
            f"({len(features.MODEL_FEATURES)}); train again"
        )
        raise SchemaError(msg)
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != manifest.files[name]:
            msg = f"{name} in {folder} is not the file the manifest names: its SHA-256 differs"
            raise SchemaError(msg)
    return manifest, contents


def _prove(folder: Path, got: Floats, expected: Floats) -> None:
    if got.shape != expected.shape or not np.allclose(got, expected, rtol=GOLDEN_TOLERANCE, atol=1e-9, equal_nan=True):
        worst = float(np.nanmax(np.abs(got - expected))) if got.shape == expected.shape else math.nan
        msg = f"the bundle in {folder} does not reproduce its golden batch (largest difference {worst:g})"
        raise SchemaError(msg)
