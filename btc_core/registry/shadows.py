"""The version of a model that its gate has refused, and how it does in shadow: an alias, and a tag of the version.

The version does not serve. What does not belong here: computing its score (`btc_assets.shadows`), the gate
(`btc_core.models.gate`), and promoting (`promotion`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.names import REFUSED
from btc_core.registry.bundles import mlflow_of

if TYPE_CHECKING:
    from btc_core.names import ModelKey
    from btc_core.settings import Settings

SCORE_TAG = "shadow_score"


class ShadowScore(msgspec.Struct, frozen=True):
    """How a refused version forecasts the live rows that it was not fitted on, beside the baseline that serves in its place."""

    ratio: float
    """Its mean loss over that of the baseline; below 1 is better."""
    bound: float
    """The upper 95 % bound of `ratio`."""
    rows: int
    from_ns: int
    """The first origin."""
    to_ns: int
    """The last origin."""
    judged_ns: int

    @property
    def words(self) -> str:
        """The score as a sentence without its end.

        >>> ShadowScore(1.031, 1.06, 240, 0, 0, 0).words
        "in shadow: loss 1.0310 of the baseline's (95 % bound 1.0600) on 240 live rows"
        """
        return f"in shadow: loss {self.ratio:.4f} of the baseline's (95 % bound {self.bound:.4f}) on {self.rows:,} live rows"


class RefusedVersion(msgspec.Struct, frozen=True):
    """The newest version that the gate has refused."""

    version: str
    kind: str
    reason: str
    """Why the gate refused it."""
    score: ShadowScore | None
    """None until an hour of live rows has outcomes."""


def refused_version(settings: Settings, key: ModelKey) -> RefusedVersion | None:
    """The version with the alias `refused`, None if the gate has not refused the newest training; raises `StoreError`."""
    found = mlflow_of(settings).aliased_version(key.name, REFUSED)
    if found is None:
        return None
    tags = found.tags
    return RefusedVersion(
        found.version, tags.get("kind", ""), tags.get("gate_reason", ""), score_in(tags.get(SCORE_TAG, ""))
    )


def score_in(text: str) -> ShadowScore | None:
    """The score in the text of a tag; None if there is none, or one that another version of this program wrote."""
    try:
        return msgspec.json.decode(text, type=ShadowScore)
    except msgspec.MsgspecError:
        return None


def keep_score(settings: Settings, key: ModelKey, version: str, score: ShadowScore) -> None:
    """Store the score with its version; raises `StoreError`."""
    mlflow_of(settings).set_version_tag(key.name, version, SCORE_TAG, msgspec.json.encode(score).decode())
