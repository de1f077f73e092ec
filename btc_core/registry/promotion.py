"""Moving the aliases of registered models, always with a reason: promote, roll back, demote to a baseline; and listing them.

Serving processes look for the champion every few seconds, so moving an alias needs no restart.
What does not belong here: whether a model deserves it (`btc_core.models.gate`), and the files of a version (`bundles`).
"""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_S, from_ns, now_ns
from btc_core.errors import InvalidInput
from btc_core.models.bundle import golden_rows
from btc_core.models.gate import MAY_SERVE, REST_HOURS, Verdict
from btc_core.names import (
    ALIASES,
    BASELINE_KINDS,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    REFUSED,
    USER,
    WON_IN_SHADOW,
    Baseline,
    ModelKey,
    Quantity,
)
from btc_core.registry.bundles import champion_version, mlflow_of, register, version_of
from btc_core.registry.shadows import SCORE_TAG, score_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from btc_core.registry.bundles import Model, Registration
    from btc_core.settings import Settings
    from btc_core.stores.mlflow import ModelVersion

REASON_TAG = "alias_reason"
TAKEN_OVER_TAG = "took_over_from"
"""On a baseline that replaced a champion because of its live forecasts: the version of that champion."""
PROMOTED = "promoted: "
DEMOTION = "demotion of"
"""The reason of a promotion that a demotion made begins with this."""


class RegisteredVersion(msgspec.Struct, frozen=True):
    """A registered version as `btc models` shows it."""

    name: str
    symbol: str
    quantity: Quantity
    version: str
    aliases: tuple[str, ...]
    kind: str
    fit: str
    """`pre-trained`, or `pooled` or `own` for trees that were fitted on several markets or on one; empty without trees."""
    fit_reason: str
    """Why this fit was chosen; empty where there was no choice."""
    inputs: str
    """Which inputs its trees use and how much each gained, in words; empty for a model without trees."""
    pretrained: str
    """Where a pre-trained model comes from; empty for all others."""
    created: str
    gate_result: str
    """`passed`, `failed`, or `baseline` if no model was certainly better than the baseline, which serves."""
    gate_reason: str
    reason: str
    """When and why an alias was last moved to or from it; empty if that never happened."""
    shadow: str
    """How a version that the gate refused does in shadow, in words; empty for all others."""
    data_from: str
    data_to: str
    feature_version: str


class Promotion(msgspec.Struct, frozen=True):
    """A version that became champion, and why."""

    version: str
    reason: str
    held: str = ""
    """Why it does not serve yet; empty if it does."""


def versions(settings: Settings, key: ModelKey) -> list[RegisteredVersion]:
    """The versions of a model, newest first; empty before the first training. Raises `StoreError`."""
    found = mlflow_of(settings).versions(key.name)
    if not found:
        return []
    holders = {alias: version_of(settings, key, alias) for alias in ALIASES}
    return [_registered_version(key, each, holders) for each in found]


def _registered_version(key: ModelKey, version: ModelVersion, holders: Mapping[str, str | None]) -> RegisteredVersion:
    tags = version.tags
    is_refused = holders.get(REFUSED) == version.version
    return RegisteredVersion(
        name=key.name,
        symbol=key.symbol,
        quantity=key.quantity,
        version=version.version,
        aliases=tuple(alias for alias, holder in holders.items() if holder == version.version),
        kind=tags.get("kind", ""),
        fit=tags.get("fit", ""),
        fit_reason=tags.get("fit_reason", ""),
        inputs=tags.get("inputs", ""),
        pretrained=tags.get("pretrained", ""),
        created=from_ns(version.created_ns).isoformat(timespec="seconds"),
        gate_result=tags.get("gate_result", ""),
        gate_reason=tags.get("gate_reason", ""),
        reason=tags.get(REASON_TAG, ""),
        shadow=score.words if is_refused and (score := score_in(tags.get(SCORE_TAG, ""))) is not None else "",
        data_from=tags.get("data_from", ""),
        data_to=tags.get("data_to", ""),
        feature_version=tags.get("feature_version", ""),
    )


def promote(settings: Settings, key: ModelKey, version: str, reason: str) -> None:
    """Make a version champion and its predecessor `previous`.

    Raises `InvalidInput` without a reason or for a version that does not exist.
    """
    if not reason.strip():
        raise InvalidInput("a promotion needs a reason")
    if version not in {each.version for each in versions(settings, key)}:
        msg = f"{key.name} has no version {version}; `btc models` lists them"
        raise InvalidInput(msg)
    before = champion_version(settings, key)
    if before == version:
        return
    mlflow = mlflow_of(settings)
    _set_reason(settings, key, version, f"{PROMOTED}{reason}")
    if before is not None:
        mlflow.set_alias(key.name, PREVIOUS, before)
    mlflow.set_alias(key.name, CHAMPION, version)
    for alias in (CHALLENGER, REFUSED):
        if version_of(settings, key, alias) == version:
            mlflow.delete_alias(key.name, alias)


def promote_challenger(settings: Settings, key: ModelKey) -> Promotion | None:
    """Make the challenger champion if it passed its gate, for the reason that the gate gave; returns None if it did not.

    Trees wait for `gate.REST_HOURS` after a demotion, and a baseline after trees won in shadow, so that a market does not go to
    and fro between them. While a user's model serves, a challenger waits: it was compared with the stand-in of that model,
    not with the model.
    """
    for each in versions(settings, key):
        if CHALLENGER in each.aliases and each.gate_result in MAY_SERVE:
            of_user = _version_of_user(settings, key)
            held = (
                f"version {of_user}, a user's model, serves; this version becomes its stand-in with its next fit"
                if of_user
                else _held(settings, key, is_baseline=each.kind in BASELINE_KINDS)
            )
            if not held:
                promote(settings, key, each.version, each.gate_reason)
            return Promotion(each.version, each.gate_reason, held)
    return None


def promote_refused(settings: Settings, key: ModelKey, version: str, reason: str) -> Promotion:
    """Make a version that won in shadow champion, unless trees have to wait or a user's model serves.

    The live `reason` joins that of its training.
    """
    reason = f"{WON_IN_SHADOW}{reason}"
    of_user = _version_of_user(settings, key)
    held = (
        f"version {of_user}, a user's model, serves, and this version was compared with its stand-in"
        if of_user
        else _held(settings, key, is_baseline=False)
    )
    if not held:
        mlflow = mlflow_of(settings)
        before = mlflow.version(key.name, version).tags.get("gate_reason", "")
        mlflow.set_version_tag(key.name, version, "gate_reason", f"{reason}; before that: {before}")
        mlflow.set_version_tag(key.name, version, "gate_result", "passed")
        promote(settings, key, version, reason)
    return Promotion(version, reason, held)


def _version_of_user(settings: Settings, key: ModelKey) -> str:
    """The version of the champion if it is a user's model, else ""."""
    champion = champion_version(settings, key)
    if champion is None or mlflow_of(settings).version(key.name, champion).tags.get("kind") != USER:
        return ""
    return champion


def _held(settings: Settings, key: ModelKey, *, is_baseline: bool) -> str:
    """Why trees, or a baseline, may not serve yet, in words; empty if they may."""
    champion = champion_version(settings, key)
    began, rest = (WON_IN_SHADOW, "baseline replaces") if is_baseline else (DEMOTION, "trees replace")
    since_s = None if champion is None else _promoted_at_s(settings, key, champion, began)
    if since_s is None:
        return ""
    until_ns = round((since_s + REST_HOURS * 3_600) * NS_PER_S)
    if now_ns() >= until_ns:
        return ""
    how = "won in shadow" if is_baseline else "took over by a demotion"
    return f"version {champion} {how}, and no {rest} it before {from_ns(until_ns).isoformat(timespec='minutes')}"


def rollback(settings: Settings, key: ModelKey, reason: str) -> str:
    """Make the previous champion champion again and return its version; raises `InvalidInput` if there is none."""
    if not reason.strip():
        raise InvalidInput("a rollback needs a reason")
    before, champion = (version_of(settings, key, alias) for alias in (PREVIOUS, CHAMPION))
    if before is None or before == champion:
        msg = f"{key.name} has no previous champion"
        raise InvalidInput(msg)
    if champion is not None:
        _set_reason(settings, key, champion, f"rolled back: {reason}")
    promote(settings, key, before, f"rollback of {champion}: {reason}")
    return before


def demote(  # noqa: PLR0913, PLR0917 - what is replaced, by what, proven by what, and why
    settings: Settings,
    key: ModelKey,
    model: Model,
    baseline: Baseline,
    rows: npt.NDArray[np.float64],
    reason: str,
) -> Registration:
    """Register a baseline that is part of the champion `model` and make it champion; `rows` (n, features) prove it."""
    verdict = Verdict(passed=True, beats_baselines=False, reason=f"{baseline} of version {model.version}: {reason}")
    registration = publish(settings, key, model.as_baseline(baseline), rows, verdict)
    mlflow_of(settings).set_version_tag(key.name, registration.version, TAKEN_OVER_TAG, model.version)
    promote(settings, key, registration.version, f"{DEMOTION} {model.version} ({model.kind}) to {baseline}: {reason}")
    return registration


def demoted_at_s(settings: Settings, key: ModelKey, version: str) -> float | None:
    """When a version became champion because its predecessor was demoted, in seconds since the epoch; None if it did not so.

    Raises `StoreError`.
    """
    return _promoted_at_s(settings, key, version, DEMOTION)


def _promoted_at_s(settings: Settings, key: ModelKey, version: str, began: str) -> float | None:
    """When a version became champion for a reason that began so, in seconds since the epoch; None for another reason."""
    tag = mlflow_of(settings).version(key.name, version).tags.get(REASON_TAG, "")
    stamp, _, reason = tag.partition(" ")
    return datetime.fromisoformat(stamp).timestamp() if reason.startswith(f"{PROMOTED}{began}") else None


def publish(  # noqa: PLR0913 - everything that MLflow keeps of a version
    settings: Settings,
    key: ModelKey,
    model: Model,
    rows: npt.NDArray[np.float64],
    verdict: Verdict,
    *,
    params: Mapping[str, str] | None = None,
    pictures: Mapping[str, bytes] | None = None,
    alias: str | None = CHALLENGER,
) -> Registration:
    """Save a model as a bundle, whose golden batch is taken from `rows` (n, features), and register it under an alias, if any."""
    model.manifest = msgspec.structs.replace(model.manifest, symbol=key.symbol)
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        folder = Path(scratch) / "bundle"
        model.save(folder, golden_rows(rows))
        return register(settings, key, folder, verdict, params=params, pictures=pictures, alias=alias)


def _set_reason(settings: Settings, key: ModelKey, version: str, reason: str) -> None:
    stamped = f"{from_ns(now_ns()).isoformat(timespec='seconds')} {reason}"
    mlflow_of(settings).set_version_tag(key.name, version, REASON_TAG, stamped)
