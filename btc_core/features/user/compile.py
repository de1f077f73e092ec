"""A user's feature as compiled code: a function of the closed minutes that end at a place.

What does not belong here: what a file may hold (`files`), and when a feature is computed (`values`).
"""

from __future__ import annotations

import re
import types
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numba
from numba.core.errors import NumbaError

from btc_core.errors import InvalidInput
from btc_core.features.user.files import FUNCTION
from btc_core.features.user.minutes import Minutes

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from btc_core.features.user.files import FeatureFile

Value: TypeAlias = "Callable[[npt.NDArray[np.float64], int, int], float]"
"""Computes the feature from the columns begin to end (exclusive) of an array of shape (fields, minutes)."""
_PLACE = re.compile(r'File "(.*?)", line (\d+)')
_HEADS = ("Failed in", "During:", "File ", "- ", "^")
_ENDS = ("Overload", "There are", "def ", "<source", "This error")
"""`_HEADS`: prefixes of numba's message lines that are dropped. `_ENDS`: prefixes of the first line about numba's internals;
this line and all later ones are dropped."""
_NOISE = re.compile(r"\x1b\[[0-9;]*m")
MAX_WORDS = 400


def compiled(file: FeatureFile, *, checks_bounds: bool = True) -> Value:
    """Compile a feature; raises `InvalidInput` with the line that numba refuses.

    The arrays are read-only. With `checks_bounds`, reading outside of the given minutes raises `IndexError`. Division by
    zero gives an infinity or NaN, as in numpy.
    """
    jit = numba.njit(nogil=True, boundscheck=checks_bounds, error_model="numpy")
    namespace: dict[str, Any] = {"__name__": f"user_feature_{file.name}"}
    try:
        exec(compile(file.source, str(file.path), "exec"), namespace)  # noqa: S102 - running the user's file is the purpose
    except Exception as error:
        msg = f"{file.path.name}: {type(error).__name__}: {error}"
        raise InvalidInput(msg) from error
    for name, each in list(namespace.items()):
        if isinstance(each, types.FunctionType) and each.__code__.co_filename == str(file.path):
            namespace[name] = jit(each)
    feature = namespace[FUNCTION]

    def value(fields: Any, begin: int, end: int) -> float:
        return float(
            feature(
                Minutes(
                    fields[0, begin:end], fields[1, begin:end], fields[2, begin:end], fields[3, begin:end],
                    fields[4, begin:end], fields[5, begin:end], fields[6, begin:end], fields[7, begin:end],
                    fields[8, begin:end], fields[9, begin:end], fields[10, begin:end],
                )
            )
        )  # fmt: skip

    function = jit(value)
    fields = numba.types.Array(numba.float64, 2, "C", readonly=True)
    try:
        function.compile((fields, numba.int64, numba.int64))
    except NumbaError as error:
        raise InvalidInput(_words(file, error)) from error
    return _reading(function)


def _reading(function: Any) -> Value:
    def value(fields: npt.NDArray[np.float64], begin: int, end: int) -> float:
        view = fields.view()
        view.flags.writeable = False
        return float(function(view, begin, end))

    return value


def _words(file: FeatureFile, error: NumbaError) -> str:
    """What numba says, with the line of the user's file and without what it says about its own functions."""
    text = _NOISE.sub("", str(error))
    own = [int(line) for name, line in _PLACE.findall(text) if Path(name).name == file.path.name]
    place = f", line {own[-1]}" if own else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = list(
        takewhile(lambda line: not line.startswith(_ENDS), (line for line in lines if not line.startswith(_HEADS)))
    )
    words = " ".join(said)[:MAX_WORDS]
    if "setitem" in words and "readonly" in words:
        words = "the minutes are read-only; copy an array before you change it"
    elif "<class 'float'>" in words or "float()" in words:
        words = f"{FUNCTION} must return one number in every case, and float('nan') where there is no value"
    return f"{file.path.name}{place}: numba cannot compile it: {words}"
