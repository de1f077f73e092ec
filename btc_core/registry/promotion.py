"""Moving the aliases of registered models, always with a reason: promote, roll back, demote to the baseline, list.

Serving processes look at the alias every few seconds and swap what they hold, so a move needs no restart.
What does not belong here: whether a model deserves it (`gate`), and files (`registry`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.clock import from_ns, now_ns
from btc_core.errors import InvalidInput
from btc_core.models.bundle import BidModel, VolatilityModel, golden_rows
from btc_core.models.gate import Verdict
from btc_core.names import CHALLENGER, CHAMPION, PREVIOUS
from btc_core.registry import bundles

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from btc_core.registry.bundles import Registered
    from btc_core.settings import Settings

MAX_VERSIONS = 200
"""Listed of one model, newest first."""


class Listed(msgspec.Struct, frozen=True):
    """A registered version as a person looks at it."""

    name: str
    version: str
    aliases: tuple[str, ...]
    kind: str
    created: str
    gate_result: str
    gate_reason: str
    reason: str
    """Why it was last moved, and when; empty for one that never was."""
    data_from: str
    data_to: str
    feature_version: str


def versions(settings: Settings, name: str) -> list[Listed]:
    """Versions of a model, newest first; empty before the first training. Raises `StoreError`."""
    query = {"filter": f"name='{name}'", "max_results": str(MAX_VERSIONS), "order_by": "version_number DESC"}
    answer = bundles.call(settings, "GET", "model-versions/search", query)
    aliases: dict[str, list[str]] = {}
    for alias in (CHAMPION, CHALLENGER, PREVIOUS):
        holder = bundles.version_of(settings, name, alias) if answer.get("model_versions") else None
        if holder is not None:
            aliases.setdefault(holder, []).append(alias)
    listed = [_listed(name, each, aliases) for each in answer.get("model_versions", [])]
    return sorted(listed, key=lambda each: -int(each.version))


def _listed(name: str, answer: dict[str, Any], aliases: dict[str, list[str]]) -> Listed:
    tags = {tag["key"]: tag["value"] for tag in answer.get("tags", [])}
    return Listed(
        name=name,
        version=str(answer["version"]),
        aliases=tuple(aliases.get(str(answer["version"]), ())),
        kind=tags.get("kind", ""),
        created=from_ns(int(answer["creation_timestamp"]) * 1_000_000).isoformat(timespec="seconds"),
        gate_result=tags.get("gate_result", ""),
        gate_reason=tags.get("gate_reason", ""),
        reason=tags.get("alias_reason", ""),
        data_from=tags.get("data_from", ""),
        data_to=tags.get("data_to", ""),
        feature_version=tags.get("feature_version", ""),
    )


def promote(settings: Settings, name: str, version: str, reason: str) -> None:
    """Make a version champion; the one before becomes `previous`. Raises `InvalidInput` for a version there is not."""
    if not reason.strip():
        raise InvalidInput("a promotion needs a reason")
    if version not in {each.version for each in versions(settings, name)}:
        msg = f"{name} has no version {version}; `btc models` lists what there is"
        raise InvalidInput(msg)
    before = bundles.champion_version(settings, name)
    if before == version:
        return
    _explain(settings, name, version, f"promoted: {reason}")
    if before is not None:
        bundles.set_alias(settings, name, PREVIOUS, before)
    bundles.set_alias(settings, name, CHAMPION, version)
    if bundles.version_of(settings, name, CHALLENGER) == version:
        body = {"name": name, "alias": CHALLENGER}
        bundles.call(settings, "DELETE", "registered-models/alias", body)


def rollback(settings: Settings, name: str, reason: str) -> str:
    """Give the title back to the previous champion; returns its version. Raises `InvalidInput` when there is none."""
    if not reason.strip():
        raise InvalidInput("a rollback needs a reason")
    before, champion = (bundles.version_of(settings, name, alias) for alias in (PREVIOUS, CHAMPION))
    if before is None or before == champion:
        msg = f"{name} has no champion before the present one"
        raise InvalidInput(msg)
    if champion is not None:
        _explain(settings, name, champion, f"rolled back: {reason}")
    promote(settings, name, before, f"rollback of {champion}: {reason}")
    return before


def demote(
    settings: Settings, model: VolatilityModel | BidModel, rows: npt.NDArray[np.float64], reason: str
) -> Registered:
    """Register the baseline that is inside the champion and make it champion; `rows` are the inputs of its proof."""
    verdict = Verdict(passed=True, beats_baselines=False, reason=f"the baseline of version {model.version}: {reason}")
    return publish(
        settings, model.as_baseline(), rows, verdict, promote_because=f"demotion of {model.version}: {reason}"
    )


def publish(  # noqa: PLR0913 - everything a registered version carries
    settings: Settings,
    model: VolatilityModel | BidModel,
    rows: npt.NDArray[np.float64],
    verdict: Verdict,
    *,
    params: dict[str, str] | None = None,
    pictures: dict[str, bytes] | None = None,
    promote_because: str = "",
) -> Registered:
    """Save and register a model, its pictures beside it; with a reason to, make it champion at once."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        folder = Path(scratch) / "bundle"
        model.save(folder, golden_rows(rows))
        registered = bundles.register(settings, folder, verdict, params, pictures)
    if promote_because:
        promote(settings, registered.name, registered.version, promote_because)
    return registered


def _explain(settings: Settings, name: str, version: str, reason: str) -> None:
    stamped = f"{from_ns(now_ns()).isoformat(timespec='seconds')} {reason}"
    body = {"name": name, "version": version, "key": "alias_reason", "value": stamped}
    bundles.call(settings, "POST", "model-versions/set-tag", body)
