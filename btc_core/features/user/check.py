"""Checks that a user's feature compiles, depends only on its own minutes, and is fast enough.

The check runs the function on made-up markets, in a process of its own that is killed when it takes too long. Look-ahead is
found by changing everything after a minute: the value at that minute must keep all of its bits. Everything before the
minutes that the feature may read is changed in the same way, because a restarted worker may not know it.
What does not belong here: what a file may hold (`files`), and the folder of checked files (`folder`).
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import numpy as np

from btc_core.errors import BtcError, InvalidInput, ServiceError
from btc_core.features.user.compile import compiled
from btc_core.features.user.files import FUNCTION, FeatureFile, feature_of
from btc_core.features.user.minutes import LONGEST, Minutes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from btc_core.features.user.compile import Value

    Floats = npt.NDArray[np.float64]

BUDGET_US = 100.0
"""Longest time for one value, in microseconds. With 16 features (`folder.MAX_FEATURES`) at this limit, each minute costs the
features worker 1.6 ms per market, and computing one feature for a year of training rows takes 53 s."""
CHECK_S = 60.0
"""Most processor time of a whole check, which takes some 5 s; most of it is the compiler."""
WAIT_FACTOR = 5.0
"""How many times as long the check may take on a busy machine, before it is given up and made again. That refuses no file."""
CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
"""The signals by which a faulty function ends its process. Others, such as that of a machine without memory, say nothing about it."""
CHECK_REVISION = 1
"""Raise it when the check refuses more than before; files that passed an older check are then checked again."""
SETTINGS_PREFIX = "BTC_"
"""The variables of the system's settings, which the process of the check does not get: some are secrets."""
PLACES = 24
"""Minutes of each made-up market at which the value is looked at."""
TIMED = 200
ROUNDS = 5
_MARGIN = LONGEST
_COUNT = 4 * LONGEST
_FIRST_MIN = 29_000_000


class CheckedFeature(msgspec.Struct, frozen=True, tag="checked"):
    """What a check measured."""

    value_us: float
    """Time for one value on the slowest of the made-up markets."""
    examples: tuple[float | None, ...]
    """Values on a plain made-up market; None where the feature is NaN."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Why a feature may not join the stream."""

    reason: str


_answers: msgspec.json.Decoder[CheckedFeature | Refused] = msgspec.json.Decoder(CheckedFeature | Refused)


def check(file: FeatureFile) -> CheckedFeature:
    """Check a feature in a process of its own; raises `InvalidInput`, which says what is wrong, where, and what to do.

    Raises `ServiceError` if the check could not be made, which says nothing about the feature.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIX)}
    command = [sys.executable, "-m", "btc_core.features.user.check", str(file.path), str(math.ceil(CHECK_S))]
    try:
        done = subprocess.run(
            command, input=file.source, capture_output=True, env=environment, timeout=WAIT_FACTOR * CHECK_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        msg = f"{file.path.name}: the check had too little processor time within {WAIT_FACTOR * CHECK_S:g} s; it is made again"
        raise ServiceError(msg) from error
    if done.returncode == -signal.SIGXCPU:
        msg = (
            f"{file.path.name}: the check took longer than {CHECK_S:g} s of processor time and was ended; {FUNCTION} probably never "
            "returns for some minutes. Give every loop an end"
        )
        raise InvalidInput(msg)
    if -done.returncode in CRASHES:
        msg = (
            f"{file.path.name}: {FUNCTION} crashed its process ({signal.Signals(-done.returncode).name}); it probably reads far "
            f"outside of its arrays, which have {file.minutes} minutes"
        )
        raise InvalidInput(msg)
    try:
        answer = _answers.decode(done.stdout)
    except msgspec.DecodeError as error:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["without a message"]
        how = (
            f"ended with code {done.returncode}" if done.returncode >= 0 else f"was ended by signal {-done.returncode}"
        )
        msg = f"{file.path.name}: the process of the check {how}: {last[0]}; it is made again"
        raise ServiceError(msg) from error
    if isinstance(answer, Refused):
        raise InvalidInput(answer.reason)
    return answer


def check_here(file: FeatureFile) -> CheckedFeature:
    """Check a feature in this process, which may then never return; raises `InvalidInput`."""
    unchecked = compiled(file, checks_bounds=False)
    function = compiled(file)
    plain: list[float] = []
    slowest_us = 0.0
    for market, fields in made_up_markets():
        for end in np.linspace(2 * _MARGIN, _COUNT - _MARGIN, PLACES).astype(int).tolist():
            try:
                _check_leaks(file, unchecked, market, fields, end)
                value = _check_value(file, function, market, fields, end)
            except BtcError:
                raise
            except Exception as error:  # noqa: BLE001 - the function is the user's, and may raise anything
                _refuse_error(file, market, fields, end, error)
            if market == _PLAIN:
                plain.append(value)
        slowest_us = max(slowest_us, _time_us(function, fields, file.minutes))
    if not np.isfinite(plain).any():
        msg = (
            f"{file.path.name}: {FUNCTION} returned NaN at every minute of a market in which everything is known; it would always "
            "be NaN"
        )
        raise InvalidInput(msg)
    if slowest_us > BUDGET_US:
        msg = (
            f"{file.path.name}: {FUNCTION} takes {slowest_us:.0f} µs for one value, and may take {BUDGET_US:g} µs, because it runs in "
            f"the features worker at every minute close. Read fewer than {file.minutes} minutes, or make its loops shorter"
        )
        raise InvalidInput(msg)
    return CheckedFeature(slowest_us, tuple(value if math.isfinite(value) else None for value in plain))


_PLAIN = "with a quote and a trade in every minute"


def made_up_markets() -> Iterator[tuple[str, Floats]]:
    """Minutes of made-up markets, (fields, minutes), each with a description."""
    plain = _plain_market(np.random.default_rng(5))
    yield _PLAIN, plain
    rng = np.random.default_rng(6)
    sparse = plain.copy()
    sparse[:7, rng.random(_COUNT) < 0.6] = math.nan
    yield "in which most minutes have no trade", sparse
    bars = plain.copy()
    bars[5:10] = math.nan
    yield "of minute bars alone", bars
    flat = np.repeat(plain[:, :1], _COUNT, axis=1)
    flat[0:4] = flat[3]
    flat[6] = flat[8] = flat[9] = 0.0
    flat[10] = plain[10]
    yield "that never moves", flat
    wild = plain.copy()
    jumps = np.exp(np.cumsum(rng.normal(0.0, 0.3, _COUNT)))
    wild[0:4] *= 1e-12 * jumps
    wild[4] *= 1e15
    wild[6] *= 1e15
    yield "with huge jumps and quantities", wild
    unknown = np.full_like(plain, math.nan)
    unknown[10] = plain[10]
    yield "of which nothing is known", unknown


def _plain_market(rng: np.random.Generator) -> Floats:
    log_sigma = np.zeros(_COUNT)
    for minute in range(1, _COUNT):
        log_sigma[minute] = 0.98 * log_sigma[minute - 1] + 0.15 * rng.normal()
    sigma = 5e-4 * np.exp(log_sigma)
    close = 60_000.0 * np.exp(np.cumsum(sigma * rng.normal(size=_COUNT)))
    opens = np.concatenate([[60_000.0], close[:-1]])
    reach = np.exp(0.5 * sigma * np.abs(rng.normal(size=_COUNT)))
    volume = rng.gamma(2.0, 2.0, _COUNT)
    minutes = Minutes(
        open=opens,
        high=np.maximum(opens, close) * reach,
        low=np.minimum(opens, close) / reach,
        close=close,
        volume=volume,
        trades=rng.integers(1, 200, _COUNT).astype(float),
        signed_volume=volume * rng.uniform(-1.0, 1.0, _COUNT),
        quotes=rng.integers(1, 600, _COUNT).astype(float),
        spread_bps=rng.gamma(2.0, 0.1, _COUNT),
        top_imbalance=rng.uniform(-1.0, 1.0, _COUNT),
        end_min=np.arange(_COUNT, dtype=np.float64) + _FIRST_MIN + 1.0,
    )
    return np.stack(minutes)


def _check_leaks(file: FeatureFile, function: Value, market: str, fields: Floats, end: int) -> None:
    """Refuse a value that depends on anything but the minutes that it may read."""
    begin = end - file.minutes
    value = function(fields, begin, end)
    if _bits(value) != _bits(function(fields, begin, end)) or _bits(value) != _bits(
        function(fields.copy(), begin, end)
    ):
        msg = (
            f"{file.path.name}: {FUNCTION} gave two values for the same minutes ({value:.6g} first); its value must depend on them "
            "alone, or a replay could not compute it again"
        )
        raise InvalidInput(msg)
    for where, words, most in (
        (slice(end, None), "it looks ahead", "after it"),
        (slice(None, begin), "it reads older minutes than it says", "more than MINUTES before it"),
    ):
        for filled in (np.random.default_rng(end).normal(0.0, 1e6, fields[:, where].shape), math.nan):
            changed = fields.copy()
            changed[:, where] = filled
            other = function(changed, begin, end)
            if _bits(other) != _bits(value):
                _refuse_leak(file, fields, end, f"{words}: in a market {market}, its value at a minute changed from {value:.6g} to "
                             f"{other:.6g} when only the minutes {most} were changed")  # fmt: skip


def _refuse_leak(file: FeatureFile, fields: Floats, end: int, what: str) -> NoReturn:
    line = _line(file, fields, end)
    msg = (
        f"{file.path.name}{line}: {what}. With MINUTES = {file.minutes} the arrays have the indices 0 to {file.minutes - 1}; the "
        "minute that just closed is the last one, [-1]"
    )
    raise InvalidInput(msg)


def _refuse_error(file: FeatureFile, market: str, fields: Floats, end: int, error: Exception) -> NoReturn:
    msg = (
        f"{file.path.name}{_line(file, fields, end)}: in a market {market}, {FUNCTION} raised {type(error).__name__}: {error}. "
        "Return float('nan') where there is no value"
    )
    raise InvalidInput(msg) from error


def _check_value(file: FeatureFile, function: Value, market: str, fields: Floats, end: int) -> float:
    """The value at a place; refuses a feature that reads beyond its minutes there, or gives an infinity."""
    try:
        value = function(fields, end - file.minutes, end)
    except IndexError:
        _refuse_leak(file, fields, end, f"in a market {market}, it reads outside of its minutes")
    if math.isinf(value):
        msg = (
            f"{file.path.name}: in a market {market}, {FUNCTION} returned {value}; return float('nan') where there is no value, for "
            "example before you divide by zero"
        )
        raise InvalidInput(msg)
    return value


def _line(file: FeatureFile, fields: Floats, end: int) -> str:
    """The line at which the function fails when Python runs it, as `, line 7`; empty if it does not fail there."""
    namespace: dict[str, Any] = {}
    exec(compile(file.source, str(file.path), "exec"), namespace)  # noqa: S102 - running the user's file is the purpose
    view = fields[:, end - file.minutes : end]
    view.flags.writeable = False
    try:
        with np.errstate(all="ignore"):
            namespace[FUNCTION](Minutes(*view))
    except Exception as error:  # noqa: BLE001 - the function is the user's, and may raise anything
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file.path)
        ]
        return f", line {lines[-1]}" if lines else ""
    return ""


def _bits(value: float) -> bytes:
    """The bits of a value; all NaNs count as the same."""
    return np.float64(math.nan if math.isnan(value) else value).tobytes()


def _time_us(function: Value, fields: Floats, minutes: int) -> float:
    """Processor time for one value; the fastest of some rounds, so that other work of the machine does not count."""
    ends = np.linspace(2 * _MARGIN, _COUNT - _MARGIN, TIMED).astype(int).tolist()
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.thread_time()
        for end in ends:
            function(fields, end - minutes, end)
        rounds.append(time.thread_time() - began_s)
    return 1e6 * min(rounds) / TIMED


def main() -> None:
    """Check the file that standard input holds and the command line names, in so many seconds of processor time, and print the result as JSON."""
    most_s = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(
        resource.RLIMIT_CPU, (most_s, most_s + 1)
    )  # it holds also when the process that waits was killed
    answer: CheckedFeature | Refused
    try:
        answer = check_here(feature_of(Path(sys.argv[1]), sys.stdin.buffer.read()))
    except InvalidInput as error:
        answer = Refused(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
