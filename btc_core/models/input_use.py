"""What a manifest says of the inputs of its model; `input_gains` measures it."""

from __future__ import annotations

import msgspec


class InputUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs that a fitted model uses."""

    streamed_days: int = 0
    """Sealed days of the training window whose rows have the features of the stream; the others come from minute bars."""
    offered: int = 0
    """Number of inputs that the trees could choose from; 0 without trees."""
    gains: dict[str, float] = {}
    """Share of each input that the trees use in their total gain, largest first."""
    net_effects: dict[str, float] = {}
    """Share of each input of the net in the changes of its output if inputs are missing, largest first."""
