"""The pre-trained volatility model that ships with the package: trees, a net and HARX coefficients of other markets.

Everything in it has no scale, so that a market that was never seen gets a model as soon as half an hour of its bars is
labelled: `model_of` puts the trees and the net on the market's own HARX, which is shrunk towards the pre-trained one, and
its offsets and start quantiles are shrunk in the same way. The result is a bundle like any other.

The file is one ZIP archive of plain data, without pickles:

```
manifest.json   where it comes from (bars by SHA-256, command, versions), its scores on bars it was not fitted on, and the
                SHA-256 of the other entries
harx.json       the HARX prior
trees.ubj       XGBoost's own format
net.npz         the nets in half precision
golden.npz      inputs and the outputs that they gave when the file was made
```

What does not belong here: how it is fitted (`pretraining`), and whether it may serve (`gate`, `btc_assets.training`).
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core import horizons
from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.errors import NotReady, SchemaError
from btc_core.features.catalogue import DRIFTING_FEATURES, FOLD_REVISION, MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS_VERSION
from btc_core.models.baselines import fit_baselines
from btc_core.models.bundle import VolatilityModel
from btc_core.models.dataset import Frame, make_frame
from btc_core.models.fitting import harx_bundle
from btc_core.models.harx_prior import EVIDENCE_NS, HarxPrior, ShrinkageRecipe, shrunk_harx
from btc_core.models.histograms import histogram_of
from btc_core.models.intervals import as_fields, fit_quantiles, with_tails
from btc_core.models.manifest import NET_MEMBER, TREES_MEMBER, Manifest, Member, new_manifest
from btc_core.models.net import INPUTS, Net
from btc_core.models.pooling import POOLED_TREE_INPUTS
from btc_core.models.recipe import RECIPE, Recipe
from btc_core.models.trees import Forest, booster_files, booster_of
from btc_core.names import HORIZONS_MIN, VOLATILITY_MODEL

if TYPE_CHECKING:
    import numpy.typing as npt
    import xgboost

    from btc_core.models.harx import Harx

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)

LAYOUT = 1
"""Version of the archive. A file of another layout is refused."""
SHIPPED = Path(__file__).with_name("pretrained_volatility.zip")
INPUTS_DIGEST = hashlib.sha256(repr((POOLED_TREE_INPUTS, INPUTS, COLUMNS_VERSION, FOLD_REVISION)).encode()).hexdigest()[
    :12
]
"""Changes with the inputs of the trees and of the net, and with how they are computed."""
CALIBRATION_ROWS = 3_000
"""At most this many of the newest rows calibrate the offsets and the intervals: more would only take longer."""
GOLDEN_TOLERANCE = 1e-5
"""Relative; forecasts are computed in float32, and a wrong tree differs by 1e-2."""
UNREGISTERED = "pretrained-"
"""What the version of a pre-trained model begins with until it is registered."""
FIRST_RENEWAL_NS = 60 * NS_PER_MIN
"""How long the first unregistered model of a market serves at least."""
MANIFEST, HARX, TREES, NET, GOLDEN = "manifest.json", "harx.json", "trees.ubj", "net.npz", "golden.npz"
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every entry, so that equal contents give an equal file."""


class Source(msgspec.Struct, frozen=True):
    """A file of minute bars, or one market of it, that was fitted on."""

    file: str
    sha256: str
    market: str
    bars: int
    first: str
    last: str


class PretrainedManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a pre-trained model comes from, and what it needs."""

    layout: int = LAYOUT
    inputs: str = INPUTS_DIGEST
    horizons_min: tuple[int, ...] = horizons.DEFAULT_MIN
    created: str
    recipe: str
    """Digest of all decisions about the fit."""
    command: str
    versions: dict[str, str]
    sources: tuple[Source, ...]
    rows: int
    trained_to_ns: int
    """Last origin of all rows that it was fitted on."""
    net_share: float
    shape_share: float
    """Share of HARX's difference between a horizon and the headline that a forecast takes."""
    quantiles: tuple[tuple[float, ...], ...]
    """Quantiles of ln(RV / forecast) for each horizon, at which the intervals of a new market start."""
    offsets: tuple[float, ...]
    """For each horizon, what brings its mean forecast to the mean of RV, ln."""
    shrinkage: ShrinkageRecipe
    min_history_h: float = 0.0
    """With a shorter history of its own a market is served by a baseline, because the model was not better there."""
    scores: dict[str, float] = {}
    """Scores on bars that a model of the same recipe was not fitted on."""
    files: dict[str, str] = {}
    """SHA-256 of the other entries."""


class Pretrained(msgspec.Struct, frozen=True):
    """A loaded pre-trained model."""

    manifest: PretrainedManifest
    prior: HarxPrior
    booster: Any
    net: Net
    digest: str = ""
    """The first twelve hexadecimal digits of the SHA-256 of the file."""

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets whose bars it was fitted on."""
        return tuple(dict.fromkeys(source.market for source in self.manifest.sources))

    @property
    def provenance(self) -> str:
        """One line that says what the model is, for people."""
        manifest = self.manifest
        first, last = min(s.first for s in manifest.sources), max(s.last for s in manifest.sources)
        return (
            f"pre-trained model {self.digest} of {manifest.created[:10]}: fitted on {', '.join(self.markets)}, "
            f"{first[:10]} to {last[:10]}, {manifest.rows} rows, recipe {manifest.recipe}"
        )


def model_of(pretrained: Pretrained, frame: Frame, recipe: Recipe = RECIPE) -> VolatilityModel:
    """The volatility model of the market of `frame`: pre-trained trees and net on the market's own, shrunk HARX.

    Raises `NotReady` when too few rows are labelled.
    """
    recent = frame.last_days(recipe.harx.window_days)
    shrinkage = pretrained.manifest.shrinkage
    try:
        harx = shrunk_harx(pretrained.prior, recent, shrinkage, recipe.harx)
    except ValueError as error:
        raise NotReady(str(error)) from error
    model = bound(pretrained, harx, frame, recipe)
    late = frame.last_days(recipe.intervals.calibration_days)
    trust = trust_in(late, shrinkage)
    rows = late.take(slice(None, None, -(-len(late.origin_ns) // CALIBRATION_ROWS)))
    labels = np.maximum(rows.realized, np.asarray(harx.rv_floor))
    ratio = labels / np.square(model.predict(rows.matrix, rows.columns) / 1e4)
    shift = trust * np.log(ratio.mean(axis=0))
    own, delivered = with_tails(fit_quantiles(np.log(ratio) - shift)), with_tails(pretrained.manifest.quantiles)
    distributions = {
        name: histogram_of(frame.matrix[:, MODEL_FEATURES.index(name)], recipe.histogram_bins)
        for name in DRIFTING_FEATURES
    }
    return model.with_manifest(
        msgspec.structs.replace(
            model.manifest,
            offsets=tuple((np.asarray(model.manifest.offsets) + shift).tolist()),
            distributions=distributions,
            **as_fields(trust * own + (1.0 - trust) * delivered),
        )
    )


def model_of_bars(pretrained: Pretrained, bars: npt.NDArray[Any], recipe: Recipe = RECIPE) -> VolatilityModel:
    """`model_of` for minute bars (dtype `bars.BARS`, sorted); raises `NotReady` when they are too few."""
    return model_of(pretrained, make_frame(bars, msgspec.structs.replace(recipe.dataset, min_bars=1)), recipe)


def cold_start_model(bars: npt.NDArray[Any], recipe: Recipe = RECIPE) -> tuple[VolatilityModel, str]:
    """The model of a market with a few hours of minute bars, for a cold start, and why it serves.

    It is the pre-trained one, or HARX if that cannot be used. Raises `NotReady` when the bars are too few for either.
    """
    try:
        pretrained = shipped()
    except SchemaError as error:
        _log.warning("HARX serves instead of the pre-trained model: %s", error)
        return harx_bundle(bars, recipe), f"HARX serves, because {error}"
    hours = (int(bars["ts_ns"][-1]) - int(bars["ts_ns"][0])) / (60 * NS_PER_MIN) if len(bars) else 0.0
    needed = pretrained.manifest.min_history_h
    if hours < needed:
        reason = f"HARX serves until {needed:g} h of bars are known; with less the pre-trained model was not better"
        return harx_bundle(bars, recipe), reason
    return model_of_bars(pretrained, bars, recipe), f"the {pretrained.provenance} serves"


def is_outgrown(manifest: Manifest, at_ns: int) -> bool:
    """Whether an unregistered pre-trained model should be made again, because its market's history has about doubled.

    It is made again after a day at the latest. A registered model is replaced by the trainings instead.
    """
    if not manifest.version.startswith(UNREGISTERED):
        return False
    known_ns = manifest.trained_to_ns - manifest.trained_from_ns
    return at_ns - manifest.trained_to_ns >= min(max(known_ns, FIRST_RENEWAL_NS), NS_PER_DAY)


def bound(pretrained: Pretrained, harx: Harx, frame: Frame, recipe: Recipe = RECIPE) -> VolatilityModel:
    """The trees and the net on a given HARX, with the offsets of the file; the simple baselines are those of `frame`."""
    manifest = pretrained.manifest
    floor = np.asarray(harx.rv_floor)
    common = frame.last_days(recipe.baselines.window_days)
    enough = msgspec.structs.replace(recipe.baselines, min_rows=manifest.shrinkage.min_rows)
    baselines = fit_baselines(common.matrix, np.maximum(common.realized, floor), floor, enough)
    described = new_manifest(
        VOLATILITY_MODEL,
        "xgboost",
        recipe=recipe.digest,
        pool=pretrained.markets,
        pretrained=pretrained.provenance,
        needs_columns=False,
        harx_share=1.0,
        harx_shape_share=manifest.shape_share,
        members={TREES_MEMBER: Member(1.0 - manifest.net_share), NET_MEMBER: Member(manifest.net_share)},
        offsets=manifest.offsets,
        **frame.training_window(),
    )
    described = msgspec.structs.replace(described, version=f"{UNREGISTERED}{pretrained.digest}")
    return VolatilityModel(described, harx, (pretrained.booster,), baselines, pretrained.net)


def trust_in(frame: Frame, shrinkage: ShrinkageRecipe) -> float:
    """The weight of what a market's own rows say, between 0 and 1, against the constants of the file."""
    slots = len(np.unique(frame.origin_ns // EVIDENCE_NS))
    return slots / (slots + shrinkage.constant_rows)


@functools.cache
def shipped() -> Pretrained:
    """The model in the package; raises `SchemaError` if it is damaged or was made for other inputs."""
    return load(SHIPPED)


def save(path: Path, pretrained: Pretrained, golden: dict[str, Any]) -> None:
    """Write the archive; `golden` are the arrays of its golden batch (`golden_batch`)."""
    files = {
        HARX: msgspec.json.encode(pretrained.prior),
        **booster_files((pretrained.booster,), ("trees",)),
        NET: _half_precision(pretrained.net),
        GOLDEN: _arrays(golden),
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = msgspec.structs.replace(pretrained.manifest, files=digests)
    files = {MANIFEST: msgspec.json.format(msgspec.json.encode(manifest), indent=2), **files}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), data, zipfile.ZIP_DEFLATED, compresslevel=9)


def load(path: Path) -> Pretrained:
    """Read and check an archive.

    Raises `SchemaError` when it is damaged, of another layout, made for other inputs, or gives other numbers than it gave
    when it was made.
    """
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            manifest = _checked_manifest(path, archive.read(MANIFEST))
            files = {name: archive.read(name) for name in manifest.files}
        for name, content in files.items():
            if hashlib.sha256(content).hexdigest() != manifest.files[name]:
                msg = f"{name} in the pre-trained model {path} is not what its manifest names: its SHA-256 differs"
                raise SchemaError(msg)
        prior = msgspec.json.decode(files[HARX], type=HarxPrior)
        booster, net = booster_of(files[TREES]), _single_precision(Net.from_bytes(files[NET]))
        with np.load(io.BytesIO(files[GOLDEN]), allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        msg = f"the pre-trained model {path} cannot be read: {error}"
        raise SchemaError(msg) from error
    loaded = Pretrained(manifest, prior, booster, net, hashlib.sha256(data).hexdigest()[:12])
    _check_golden(path, loaded, golden)
    return loaded


def _checked_manifest(path: Path, text: bytes) -> PretrainedManifest:
    """The manifest, if this process can use what it describes."""
    layout = msgspec.json.decode(text, type=dict[str, Any]).get("layout")
    if layout != LAYOUT:
        msg = f"the pre-trained model {path} has layout {layout}, this process reads {LAYOUT}; run `btc pretrain`"
        raise SchemaError(msg)
    manifest = msgspec.json.decode(text, type=PretrainedManifest)
    if manifest.inputs != INPUTS_DIGEST:
        msg = (
            f"the pre-trained model {path} reads inputs {manifest.inputs}, this process computes {INPUTS_DIGEST}; "
            "run `btc pretrain`"
        )
        raise SchemaError(msg)
    if manifest.horizons_min != HORIZONS_MIN:
        msg = (
            f"the pre-trained model forecasts {horizons.text_of(manifest.horizons_min)} minutes, and {horizons.VARIABLE} is "
            f"{horizons.text_of(HORIZONS_MIN)}"
        )
        raise SchemaError(msg)
    return manifest


def golden_batch(
    booster: xgboost.Booster, net: Net, trees: Singles, rows: tuple[Floats, Singles, Floats]
) -> dict[str, Any]:
    """A batch of inputs with what the training library and the net gave for it, for `save`.

    `trees` are the inputs of the booster, and `rows` the arguments of `Net.corrections`.
    """
    matrix, columns, log_harx = rows
    inputs = np.ascontiguousarray(trees, np.float32)
    margins = booster.inplace_predict(inputs, predict_type="margin", validate_features=False)
    corrections = rounded(net).corrections(matrix, columns, log_harx)
    return {
        "trees": inputs, "matrix": matrix, "columns": columns, "log_harx": log_harx,
        "margins": margins, "corrections": corrections,
    }  # fmt: skip


def rounded(net: Net) -> Net:
    """The net as it is read from the file, where its weights have half precision."""
    return _single_precision(Net.from_bytes(_half_precision(net)))


def _check_golden(path: Path, loaded: Pretrained, golden: dict[str, Any]) -> None:
    forest = Forest((loaded.booster,))
    forest.check_against_xgboost(golden["trees"])
    found = {
        "margins": forest.margins(golden["trees"])[:, 0],
        "corrections": loaded.net.corrections(golden["matrix"], golden["columns"], golden["log_harx"]),
    }
    for name, values in found.items():
        if not np.allclose(values, golden[name], GOLDEN_TOLERANCE, GOLDEN_TOLERANCE):
            worst = float(np.abs(values - golden[name]).max())
            msg = f"the pre-trained model {path} does not reproduce the {name} of its golden batch (off by {worst:g})"
            raise SchemaError(msg)


def _half_precision(net: Net) -> bytes:
    halves = [tuple(each.astype(np.float16) for each in layers) for layers in (net.weights, net.biases)]
    return Net(net.centre, net.scale, halves[0], halves[1]).to_bytes()


def _single_precision(net: Net) -> Net:
    singles = [tuple(each.astype(np.float32) for each in layers) for layers in (net.weights, net.biases)]
    return Net(net.centre, net.scale, singles[0], singles[1])


def _arrays(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
