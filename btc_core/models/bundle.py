"""The frozen model bundle: a folder with everything a forecast needs, refused unless it proves itself at every load.

```
bundle.json      the manifest: kind, features and their version, unit, training window, scores, SHA-256 of other files
harx.json        the log-HARX baseline (volatility only)
baselines.json   HAR, EWMA and the last five minutes (volatility), the autoregression (bid), fitted on the same window
NAME.ubj         XGBoost's own format (kind xgboost only): `from_harx` and `from_level` of the volatility, `horizon_N` of the bid
golden.npz       inputs and the outputs they gave when the bundle was made; plain arrays, never pickles
```

What does not belong here: fitting (`fitting`), walking trees (`forest`), and where bundles are kept (`registry`).
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import now_ns
from btc_core.errors import SchemaError
from btc_core.features import catalogue
from btc_core.models import intervals
from btc_core.models.baselines import Autoregression, Baselines
from btc_core.models.drift import Edges
from btc_core.models.harx import INPUTS, Harx
from btc_core.models.targets import BID_TARGETS, RV_TARGETS
from btc_core.models.trees import WALKED_ROWS, Forest
from btc_core.names import BID_MODEL, HORIZONS_MIN, VOLATILITY_MODEL, ModelKind

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import xgboost

    Floats = npt.NDArray[np.float64]

LAYOUT = 2
"""Of the folder; raise it when files or their meaning change."""
GOLDEN_TOLERANCE = 1e-6
"""Relative; boosters compute in float32, whose last digit (6e-8) may differ between machines. A wrong tree: 1e-2."""
GOLDEN_ROWS = 64
VOLATILITY_TREES = ("from_harx", "from_level")
"""Files of the volatility's boosters. Both forecast five minutes; one starts half way to HARX, the other at a constant."""
HARX_SHARE = 0.25
"""Of HARX in the start of both together: half of the one, nothing of the other."""
SHAPE_SHARE = 0.4
"""How much of HARX's difference between a horizon and five minutes a forecast takes. Trees of a horizon's own forecast it
worse than those of five minutes: their labels are noisier. On 2023, 0.25 to 0.5 did equally well."""
BID_TREES = tuple(f"horizon_{h}" for h in HORIZONS_MIN)


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is; `bundle.json`."""

    layout: int = LAYOUT
    name: str
    symbol: str = ""
    kind: ModelKind
    version: str
    """Of the registry when it came from there, else a build id."""
    created_ns: int
    feature_version: str = catalogue.FEATURE_VERSION
    features: tuple[str, ...] = catalogue.MODEL_FEATURES
    targets: tuple[str, ...]
    unit: str
    trained_from_ns: int = 0
    """First and last origin of the training window; 0 when nothing was fitted."""
    trained_to_ns: int = 0
    train_rows: int = 0
    shrinkage: tuple[float, ...] = ()
    """λ per horizon of the bid model; 0 is the random walk."""
    level: float = 0.0
    """What the volatility's trees start from, ln of ln²."""
    offsets: tuple[float, ...] = ()
    """Per horizon, what brings its mean forecast to the mean of RV in training, ln."""
    quantiles: tuple[tuple[float, ...], ...] = ()
    """Of the score of `intervals`, per horizon: where intervals start."""
    distributions: dict[str, Edges] = {}
    """Of the features in training, for `drift`."""
    recipe: str = ""
    """Hash of everything that was decided about the fit: another one is a change of specification, not a refresh."""
    code: str = ""
    """Git commit of the code that trained it, where there is one."""
    seals: tuple[str, ...] = ()
    """Sealed days that the window is made of, as `day@seal`; empty for bars that no day seals."""
    scores: dict[str, float] = {}
    """Out of sample, by `model/horizon/metric`."""
    files: dict[str, str] = {}


class VolatilityModel:
    """Forecasts the realized volatility of the next 1…5 minutes; holds the baselines beside the boosters."""

    def __init__(
        self,
        manifest: Manifest,
        harx: Harx,
        boosters: tuple[xgboost.Booster, ...] = (),
        baselines: Baselines | None = None,
    ) -> None:
        self.manifest = manifest
        self.harx = harx
        self.boosters = boosters
        self.baselines = baselines
        self._forest = Forest(boosters) if boosters else None
        self._offsets = np.asarray(manifest.offsets or (0.0,) * len(HORIZONS_MIN))
        self._harx_columns = [manifest.features.index(name) for name in INPUTS]

    @property
    def kind(self) -> ModelKind:
        """`xgboost`, or `harx` when the baseline serves."""
        return self.manifest.kind

    @property
    def version(self) -> str:
        """Registry version or build id."""
        return self.manifest.version

    def predict(self, matrix: Floats) -> Floats:
        """σ in bps over the next 1…5 min, shape (n, 5), non-decreasing in the horizon.

        `matrix` is (n, catalogue) in the order of `manifest.features`; a row without any realized variance gives NaN.
        Raises `SchemaError` for another width.
        """
        return self.predict_both(matrix)[0]

    def predict_both(self, matrix: Floats) -> tuple[Floats, Floats]:
        """The forecast and that of HARX, which is half of it: one pass gives both."""
        _check_width(matrix, self.manifest)
        logs = self.harx.log_variance(matrix[:, self._harx_columns])
        baseline = _sigma_bps(logs)
        if self._forest is None:
            return baseline, baseline
        five = HARX_SHARE * logs[:, -1:] + (1.0 - HARX_SHARE) * self.manifest.level
        five = five + 0.5 * self._forest.margins(matrix).sum(axis=1, keepdims=True)
        return _sigma_bps(five + SHAPE_SHARE * (logs - logs[:, -1:]) + self._offsets), baseline

    def baseline(self, matrix: Floats) -> Floats:
        """The HARX forecast, same unit and shape as `predict`."""
        return self.predict_both(matrix)[1]

    def others(self, matrix: Floats) -> dict[str, Floats]:
        """σ in bps, (n, 5), of the simple baselines by name; empty when the bundle has none."""
        if self.baselines is None:
            return {}
        return {name: np.sqrt(each) * 1e4 for name, each in self.baselines.variances(matrix).items()}

    def as_baseline(self) -> VolatilityModel:
        """The same without its trees: what serves when they have stopped being better."""
        manifest = msgspec.structs.replace(self.manifest, kind="harx", offsets=(), level=0.0)
        return VolatilityModel(manifest, self.harx, (), self.baselines)

    def verify_walk(self, matrix: Floats) -> None:
        """Compare the walk of the trees with XGBoost on these rows; where they differ XGBoost serves."""
        if self._forest is not None:
            self._forest.verify(matrix)

    def save(self, folder: Path, golden: Floats) -> None:
        """Write the bundle into an empty or missing folder; `golden` (n, catalogue) are the inputs of its proof."""
        proof = {"matrix": golden, "expected": self.predict(golden), "baseline": self.baseline(golden)}
        files = {"harx.json": self.harx.to_json(), **_booster_files(self.boosters, VOLATILITY_TREES)}
        if self.baselines is not None:
            files["baselines.json"] = msgspec.json.encode(self.baselines)
        _write(folder, self.manifest, files, proof)


class BidModel:
    """Forecasts the log return of the bid over the next 1…5 minutes as λ · f(catalogue) · σ."""

    def __init__(
        self,
        manifest: Manifest,
        boosters: tuple[xgboost.Booster, ...] = (),
        autoregression: Autoregression | None = None,
    ) -> None:
        self.manifest = manifest
        self.boosters = boosters
        self.autoregression = autoregression
        self._forest = Forest(boosters) if boosters else None
        self._shrinkage = np.asarray(manifest.shrinkage or (0.0,) * len(HORIZONS_MIN))

    @property
    def kind(self) -> ModelKind:
        """`xgboost`, or `random_walk` when every λ is 0."""
        return self.manifest.kind

    @property
    def version(self) -> str:
        """Registry version or build id."""
        return self.manifest.version

    def predict(self, matrix: Floats, sigma_bps: Floats) -> Floats:
        """Log returns of the bid in bps over the next 1…5 min, shape (n, 5); all 0 for the random walk.

        `matrix` is (n, catalogue) in the order of `manifest.features`, `sigma_bps` (n, 5) from the volatility model.
        Raises `SchemaError` for other shapes.
        """
        _check_width(matrix, self.manifest)
        if sigma_bps.shape != (len(matrix), len(HORIZONS_MIN)):
            msg = f"sigma_bps has shape {sigma_bps.shape}, expected {(len(matrix), len(HORIZONS_MIN))}"
            raise SchemaError(msg)
        if self._forest is None:
            return np.zeros_like(sigma_bps)
        return self._shrinkage * self._forest.margins(matrix) * sigma_bps

    def others(self, matrix: Floats) -> dict[str, Floats]:
        """Log returns in bps, (n, 5), of the baselines beside the random walk, by name; empty when nothing was fitted."""
        return {} if self.autoregression is None else {"ar": self.autoregression.returns_bps(matrix)}

    def as_baseline(self) -> BidModel:
        """The random walk, with the autoregression beside it: what serves when the trees have stopped being better."""
        nothing = (0.0,) * len(HORIZONS_MIN)
        return BidModel(
            msgspec.structs.replace(self.manifest, kind="random_walk", shrinkage=nothing), (), self.autoregression
        )

    def verify_walk(self, matrix: Floats) -> None:
        """Compare the walk of the trees with XGBoost on these rows; where they differ XGBoost serves."""
        if self._forest is not None:
            self._forest.verify(matrix)

    def save(self, folder: Path, golden: Floats) -> None:
        """Write the bundle into an empty or missing folder; `golden` (n, catalogue) are the inputs of its proof."""
        sigma = np.tile(5.0 * np.sqrt(np.asarray(HORIZONS_MIN, np.float64)), (len(golden), 1))
        proof = {"matrix": golden, "sigma_bps": sigma, "expected": self.predict(golden, sigma)}
        files = _booster_files(self.boosters, BID_TREES)
        if self.autoregression is not None:
            files["baselines.json"] = msgspec.json.encode(self.autoregression)
        _write(folder, self.manifest, files, proof)


def start_quantiles(model: VolatilityModel | BidModel) -> Floats:
    """Where the model's intervals start, (5, 6): its own calibration, or a normal score's when it has none."""
    if model.manifest.quantiles:
        return np.asarray(model.manifest.quantiles)
    return np.tile(np.asarray(intervals.NORMAL), (len(HORIZONS_MIN), 1))


def bid_path(bid: float | Floats, returns_bps: Floats) -> Floats:
    """The served path bid · exp(r / 10⁴), USD, in the shape of `returns_bps` (n, 5); `bid` one number or (n, 1)."""
    return np.asarray(bid * np.exp(returns_bps / 1e4))


def new_manifest(name: str, kind: ModelKind, **more: Any) -> Manifest:
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


def random_walk_model() -> BidModel:
    """The bid model that forecasts no change."""
    return BidModel(new_manifest(BID_MODEL, "random_walk", shrinkage=(0.0,) * len(HORIZONS_MIN)))


def golden_rows(matrix: Floats) -> Floats:
    """Up to `GOLDEN_ROWS` rows spread over `matrix`, and one of zeros: the inputs of a bundle's proof."""
    chosen = (
        matrix[np.linspace(0, len(matrix) - 1, min(GOLDEN_ROWS, len(matrix))).astype(int)] if len(matrix) else matrix
    )
    return np.ascontiguousarray(np.vstack([chosen, np.zeros((1, len(catalogue.MODEL_FEATURES)))]))


def load_bundle(folder: Path, version: str | None = None) -> VolatilityModel | BidModel:
    """Load and prove a bundle; `version` (of the registry) replaces its build id.

    Raises `SchemaError` when a file is missing or altered, the features are not those of this process, or the golden
    batch gives other numbers.
    """
    manifest, contents = _read(folder)
    if version is not None:
        manifest = msgspec.structs.replace(manifest, version=version)
    wanted = VOLATILITY_TREES if manifest.name == VOLATILITY_MODEL else BID_TREES
    try:
        boosters = tuple(_booster(contents[f"{name}.ubj"]) for name in wanted if f"{name}.ubj" in contents)
        with np.load(io.BytesIO(contents["golden.npz"]), allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
        harx = Harx.from_json(contents["harx.json"]) if manifest.name == VOLATILITY_MODEL else None
        simple = contents.get("baselines.json")
        form = Autoregression if harx is None else Baselines
        baselines: Any = None if simple is None else msgspec.json.decode(simple, type=form)
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        msg = f"the bundle in {folder} cannot be read: {error}"
        raise SchemaError(msg) from error
    if len(boosters) != (len(wanted) if manifest.kind == "xgboost" else 0):
        msg = f"the bundle in {folder} is of kind {manifest.kind} and has {len(boosters)} boosters"
        raise SchemaError(msg)
    few = slice(WALKED_ROWS)
    if harx is None:
        bid = BidModel(manifest, boosters, baselines)
        bid.verify_walk(golden["matrix"])
        _prove(folder, bid.predict(golden["matrix"], golden["sigma_bps"]), golden["expected"])
        _prove(folder, bid.predict(golden["matrix"][few], golden["sigma_bps"][few]), golden["expected"][few])
        return bid
    model = VolatilityModel(manifest, harx, boosters, baselines)
    model.verify_walk(golden["matrix"])
    _prove(folder, model.predict(golden["matrix"]), golden["expected"])
    _prove(folder, model.predict(golden["matrix"][few]), golden["expected"][few])
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


def _booster_files(boosters: tuple[xgboost.Booster, ...], names: tuple[str, ...]) -> dict[str, bytes]:
    return {
        f"{name}.ubj": bytes(booster.save_raw(raw_format="ubj")) for name, booster in zip(names, boosters, strict=False)
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
    if manifest.feature_version != catalogue.FEATURE_VERSION or manifest.features != catalogue.MODEL_FEATURES:
        msg = (
            f"{manifest.name} {manifest.version} was trained on feature set {manifest.feature_version} "
            f"({len(manifest.features)} catalogue), this process computes {catalogue.FEATURE_VERSION} "
            f"({len(catalogue.MODEL_FEATURES)}); train again"
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
