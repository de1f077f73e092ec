"""The bodies of answers about the loaded models, and about what the current forecast comes from.

What does not belong here: live scores (`skill_answers`).
"""

from __future__ import annotations

import msgspec

from serving.answers import ModelInfo
from serving.utc_time import UtcTime


class GateDecision(msgspec.Struct, frozen=True):
    """What the gate decided about a version before it could serve, in its own words."""

    passed: bool
    """Whether the model itself passed; false also for a baseline, which serves because no model passed."""
    reason: str
    """Why, with the figures that decided."""
    took_over_from: str | None = None
    """For a baseline that took over from a champion whose live forecasts were worse: that champion's version."""


class RefusedModel(msgspec.Struct, frozen=True):
    """The trees of the newest training, if the gate refused them. They do not serve, and are judged in shadow once an hour."""

    version: str
    """Its version in the registry."""
    kind: str
    """Its kind, such as `xgboost`."""
    reason: str
    """Why the gate refused it, in its own words."""
    loss_ratio: float | None
    """Its mean loss over that of the baseline that serves in its place, on the live rows that came after its training; below 1 is
    better. The loss is QLIKE for the volatility and the squared error for the bid. Null until there is an hour of rows."""
    loss_ratio_bound: float | None
    """The upper 95 % bound of `loss_ratio`."""
    rows: int
    """The number of these rows."""
    since: UtcTime | None
    """The first of these rows."""
    until: UtcTime | None
    """The last of these rows."""


class UserModelCard(msgspec.Struct, frozen=True):
    """The user's model in a version that serves. It runs in the forecast worker alone, in a process of its own."""

    name: str
    """Its name in the league: that of its file."""
    file_version: str
    """First characters of the SHA-256 of its file."""
    fit: str
    """The version of its fit, in the registry of the league."""
    stand_in: str
    """Kind of the compiled model that forecasts whenever the user's model gives no forecast in time: `xgboost`, or the name of a
    baseline. All other fields of the card describe this stand-in."""
    trained_from: str | None
    """Begin of the training window of its fit; null if it is not known."""
    trained_to: str | None
    """End of the training window of its fit; null if it is not known."""


class ModelCard(msgspec.Struct, frozen=True):
    """A loaded model: its training window, its inputs, and its scores on data that it was not trained on."""

    name: str
    """Name of the kind of model."""
    registered_name: str
    """Name of the registered model in MLflow, which contains the market."""
    kind: str
    """`xgboost`, `user` for a user's model, or the name of a baseline."""
    version: str
    """Its version in the registry. A model that is in no registry has a name of another form."""
    is_baseline: bool
    """Whether it is a baseline, which is a simple formula."""
    created_at: UtcTime
    """When it was made."""
    trained_from: UtcTime | None
    """Begin of the training window; null without one."""
    trained_to: UtcTime | None
    """End of the training window; null without one."""
    train_rows: int
    """Number of rows that it was fitted on."""
    features: int
    """Number of features that a request must give; `inputs_used` says what the model makes of them."""
    streamed_days: int
    """Sealed days of the training window whose rows have the features of the stream; the others come from minute bars."""
    inputs_offered: int
    """Number of inputs that the trees could choose from: features and columns of minute bars. 0 without trees."""
    inputs_used: int
    """Number of these that the trees use."""
    gains: dict[str, float]
    """Share of each input that the trees use in their total gain, largest first; empty without trees."""
    stream_gain: float
    """Share of the gain that comes from inputs that only the stream has, and no minute bar."""
    net_effects: dict[str, float]
    """Share of each input of the net in the changes of its output if inputs are missing, largest first."""
    feature_version: str
    """Version of the set of features: a hash of names and units."""
    targets: tuple[str, ...]
    """What it forecasts, one name for each horizon."""
    unit: str
    """Unit of what it forecasts."""
    shrinkage: tuple[float, ...]
    """λ of the bid model for each horizon; 0 is the random walk."""
    pool: tuple[str, ...]
    """The markets that its trees and net were fitted on, if those are several; empty for a fit on the market alone."""
    pretrained: str
    """Where the pre-trained trees and net come from; empty for those that this system has fitted."""
    choice: str
    """Why this fit was chosen: the market's own, the pooled or the pre-trained one; empty where there was no choice."""
    scores: dict[str, float | None]
    """Scores on data that it was not trained on, by name; null if a score is not known."""
    members: dict[str, float] = {}
    """The members that the forecast is a mean of, in logs, with their shares; empty for a baseline."""
    gate: GateDecision | None = None
    """What the gate decided; null if the registry does not know or does not answer."""
    serves_because: str = ""
    """Why it serves, in one sentence."""
    refused: RefusedModel | None = None
    """The version that was refused in favour of this one; null if none was, or the registry does not answer."""
    user_model: UserModelCard | None = None
    """The user's model that serves, if `kind` is `user`; null otherwise."""


class LoadedModels(msgspec.Struct, frozen=True):
    """The models of one market that this process has loaded; null while there is none."""

    symbol: str
    """Market, such as BTC/USD."""
    bid: ModelCard | None
    """The model of the bid."""
    volatility: ModelCard | None
    """The model of the volatility."""
    reasons: tuple[str, ...]
    """Why a model is missing or not the newest."""
    simulated: bool
    """True if the market is made up by the simulator."""


class Contribution(msgspec.Struct, frozen=True):
    """How much one input moves the forecast, and its value. The net as a whole is listed as `net`, without a value."""

    feature: str
    """Name of the feature or of the column of minute bars, or `net`."""
    meaning: str
    """What the input is, in words."""
    unit: str
    """Unit of the value: `ln` for a natural log, `1` for a share or a ratio; empty for `net`."""
    value: float | None
    """Value of the input now; null if it is unknown, and for `net`."""
    contribution: float
    """What the input adds to `log_variance`: above 0 it raises the forecast."""


class Explanation(msgspec.Struct, frozen=True):
    """The forecast of the volatility over the longest horizon as a sum of parts, which together are `log_variance`."""

    symbol: str
    """Market, such as BTC/USD."""
    horizon_min: int
    """Horizon of the explained forecast: the longest."""
    unit: str
    """Unit of `log_variance` and of its parts."""
    log_variance: float
    """The forecast that is explained."""
    base: float
    """The forecast for an average row of features."""
    harx: float
    """What the linear part adds."""
    offset: float
    """What the model adds by itself so that its forecasts are right on average; for a simpler baseline or a user's model, its
    difference from HARX."""
    rest: float
    """Sum of the contributions that are not listed."""
    contributions: tuple[Contribution, ...]
    """The largest contributions of the inputs, largest first."""
    model: ModelInfo
    """The model behind the forecast."""
    ts_event: UtcTime
    """Exchange time of the newest event in the features."""
    reason: str | None
    """Why there are no contributions; null if there are."""
    simulated: bool
    """True if the market is made up by the simulator."""
