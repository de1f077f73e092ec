"""What a model bundle says of itself: its manifest, with the members of a volatility model.

What does not belong here: the files of a bundle, and how a model forecasts with them (`bundle`).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from btc_core.clock import NS_PER_S, now_ns
from btc_core.features import catalogue, minute_columns
from btc_core.models.histograms import Histogram
from btc_core.models.input_use import InputUse
from btc_core.models.targets import BID_TARGETS, RV_TARGETS, TICK_RV_TARGETS
from btc_core.names import MINUTES, TICKS, USER, VOLATILITY_MODEL, Baseline, ModelKind, VolatilityTarget

LAYOUT = 4
"""Version of the folder; raise it when its files or their meaning change. Bundles of another layout are refused."""
TREES_MEMBER, NET_MEMBER = "trees", "net"
"""Names of the two members of the volatility model, which correct HARX and are averaged in logs."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the forecasts that a volatility model is the mean of, in logs."""

    share: float
    offset: float = 0.0
    """What brings its mean forecast over the headline horizon to the mean of RV in training, ln."""


class UserEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The user's model that a bundle serves; its file and its pickle are files of the bundle."""

    name: str
    """Its name in the league."""
    file_version: str
    """The version of its file: the first characters of the SHA-256."""
    model_version: str
    """The version of the fit in the registry of the league."""
    data_from: str = ""
    """Begin of its training window, ISO 8601."""
    data_to: str = ""
    """End of its training window, ISO 8601."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is; `bundle.json`."""

    layout: int = LAYOUT
    name: str
    symbol: str = ""
    """The market it was trained on; empty in bundles that were made when there was only one."""
    kind: ModelKind
    """What the compiled model is. That of a bundle with a `user` part is the stand-in's."""
    version: str
    """The registry's version where the bundle came from there, else a build id."""
    created_ns: int
    feature_version: str = catalogue.FEATURE_VERSION
    features: tuple[str, ...] = catalogue.MODEL_FEATURES
    columns_version: str = minute_columns.COLUMNS_VERSION
    targets: tuple[str, ...]
    unit: str
    trained_from_ns: int = 0
    """First origin of the training window; 0 when nothing was fitted."""
    trained_to_ns: int = 0
    """Last origin of the training window; 0 when nothing was fitted."""
    train_rows: int = 0
    shrinkage: tuple[float, ...] = ()
    """λ per horizon of the bid model; 0 is the random walk."""
    level: float = 0.0
    """The constant that the volatility's trees start from, ln of ln²."""
    harx_share: float = 0.0
    """Share of HARX in the start of the volatility's trees; the rest is `level`."""
    harx_shape_share: float = 0.0
    """Share of HARX's difference between a horizon and the headline that a volatility forecast takes."""
    members: dict[str, Member] = {}
    """The members of the volatility model by name."""
    correction_factor: float = 1.0
    """What the members' mean correction of HARX is multiplied by."""
    offsets: tuple[float, ...] = ()
    """For each horizon, what brings its mean forecast to the mean of RV in training, ln."""
    quantiles: tuple[tuple[float, ...], ...] = ()
    """Quantiles of the score of `intervals` for each horizon, at which the intervals start: those of `SCORED_QUANTILES`."""
    tails: tuple[tuple[float, ...], ...] = ()
    """Those of `names.QUANTILES` beyond them, for each horizon; empty if the scores were too few. A program that does not know
    this field reads the bundle all the same."""
    distributions: dict[str, Histogram] = {}
    """Histograms of the features in training, for `drift`."""
    pool: tuple[str, ...] = ()
    """The markets that its trees and net were fitted on, if those are several; empty for a fit on the market alone."""
    pretrained: str = ""
    """Where trees and net come from if they were not fitted on this system; empty otherwise."""
    needs_columns: bool = True
    """Whether HARX forecasts rows without columns. Pre-trained members were fitted on such rows, too."""
    choice: str = ""
    """Why this fit was chosen: the pooled one or the market's own; empty where there was no choice."""
    recipe: str = ""
    """Digest of the recipe of the fit: a model of another one is a change of specification, not a refresh."""
    code: str = ""
    """Git commit of the code that trained the model; empty where there is none."""
    seals: tuple[str, ...] = ()
    """Sealed days that the window consists of, as `day@seal`; empty for bars that no day seals."""
    scores: dict[str, float] = {}
    """Scores out of sample, by `model/horizon/metric`."""
    inputs: InputUse = InputUse()
    """Which inputs it uses."""
    files: dict[str, str] = {}
    """SHA-256 of the other files, by name."""
    user: UserEntry | msgspec.UnsetType = msgspec.UNSET
    """The user's model that serves, with all else as its stand-in; not set in other bundles, whose text has no such field."""

    @property
    def served_kind(self) -> ModelKind:
        """What forecasts: `user` if the bundle has a user's model, otherwise `kind`."""
        return self.kind if self.user is msgspec.UNSET else USER

    @property
    def user_entry(self) -> UserEntry | None:
        """The user's model; None in other bundles."""
        return None if self.user is msgspec.UNSET else self.user

    @property
    def volatility_target(self) -> VolatilityTarget:
        """What a volatility model forecasts; models of the bid, which multiply its σ, count as those of minutes."""
        return TICKS if self.targets == TICK_RV_TARGETS else MINUTES

    @property
    def horizons_min(self) -> tuple[int, ...]:
        """The horizons that it forecasts; empty if its targets have no such names."""
        found = [re.search(r"_(\d+)m(?:_bps)?$", target) for target in self.targets]
        return tuple(int(each[1]) for each in found if each)


def build_id(kind: ModelKind, created_ns: int) -> str:
    """The version of a model that no registry has given one; MLflow's run has it as its name.

    >>> build_id("ewma", 1_700_000_000_000_000_000)
    'ewma-1700000000'
    """
    return f"{kind}-{created_ns // NS_PER_S}"


def as_kind(manifest: Manifest, kind: Baseline) -> Manifest:
    """The manifest of the baseline of this kind that is part of a model: nothing of its trees and net is left in it."""
    cleared: dict[str, Any] = {"pool": (), "offsets": (), "members": {}, "inputs": InputUse()}
    cleared |= {"user": msgspec.UNSET, "pretrained": "", "needs_columns": True, "correction_factor": 1.0}
    cleared |= dict.fromkeys(("level", "harx_share", "harx_shape_share"), 0.0)
    shrinkage = (0.0,) * len(manifest.shrinkage)
    version = build_id(kind, manifest.created_ns)
    return msgspec.structs.replace(manifest, kind=kind, version=version, shrinkage=shrinkage, **cleared)


def new_manifest(name: str, kind: ModelKind, **more: Any) -> Manifest:
    """A manifest of the current feature set and time, with a build id as its version."""
    created = now_ns()
    volatility = name == VOLATILITY_MODEL
    more.setdefault("targets", RV_TARGETS if volatility else BID_TARGETS)
    return Manifest(
        name=name,
        kind=kind,
        version=build_id(kind, created),
        created_ns=created,
        unit="bps of σ, cumulative over the horizon" if volatility else "bps of log return of the bid",
        **more,
    )
