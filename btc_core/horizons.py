"""The horizons of every forecast: the setting `BTC_HORIZONS_MIN`, which is read once, when this module is imported.

Columns of tables, fields of rows and shapes of arrays follow from the horizons, so a process has the same ones from its first
import to its end. A text that cannot be read counts as the default here; `load_settings`, with which every worker begins,
and the command line refuse it and say why.
What does not belong here: other settings (`settings`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "BTC_HORIZONS_MIN"
FORMER_VARIABLE = "BTC_FORMER_HORIZONS_MIN"
TAG = "horizons_min"
"""The tag of versions in the registry that names horizons other than the default."""
DEFAULT_MIN = (1, 2, 3, 4, 5)
LONGEST_MIN = 60
MOST = 12
"""Most horizons. Each adds 26 columns to the tables."""

_WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}


def parse(text: str) -> tuple[int, ...]:
    """The horizons of a text such as `2,10,30`; an empty one stands for the default. Raises `ValueError` with the reason.

    >>> parse("2, 10,30"), parse("")
    ((2, 10, 30), (1, 2, 3, 4, 5))
    """
    if not text.strip():
        return DEFAULT_MIN
    found = []
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdigit()):
            msg = f"{word!r} in {text!r} is not a whole number of minutes; write the horizons like 1,5,15"
            raise ValueError(msg)
        if not 1 <= int(word) <= LONGEST_MIN:
            msg = f"the horizon {word} in {text!r} is not between 1 and {LONGEST_MIN} minutes"
            raise ValueError(msg)
        found.append(int(word))
    if len(found) > MOST:
        msg = f"{text!r} has {len(found)} horizons, and there can be at most {MOST}"
        raise ValueError(msg)
    doubled = sorted({each for each in found if found.count(each) > 1})
    if doubled:
        msg = f"{text!r} has {', '.join(map(str, doubled))} more than once; name each horizon once"
        raise ValueError(msg)
    if found != sorted(found):
        msg = f"the horizons in {text!r} do not ascend; write {text_of(sorted(found))}"
        raise ValueError(msg)
    return tuple(found)


def parse_former(text: str) -> tuple[tuple[int, ...], ...]:
    """The sets of horizons of a text, separated by slashes. Raises `ValueError` with the reason.

    >>> parse_former("1,2,3,4,5/2,10,30"), parse_former("")
    (((1, 2, 3, 4, 5), (2, 10, 30)), ())
    """
    return tuple(parse(part) for part in text.split("/") if part.strip())


def text_of(horizons_min: tuple[int, ...] | list[int]) -> str:
    """Horizons as the setting has them.

    >>> text_of((2, 10, 30))
    '2,10,30'
    """
    return ",".join(map(str, horizons_min))


def are_default(horizons_min: tuple[int, ...]) -> bool:
    """Whether these are the horizons that things have which name none, as older versions stored them."""
    return horizons_min == DEFAULT_MIN


def suffix(horizons_min: tuple[int, ...]) -> str:
    """What the names of things for these horizons end with: nothing for the default, so that those of older versions stay.

    >>> suffix((1, 2, 3, 4, 5)), suffix((2, 10, 30))
    ('', '-2,10,30')
    """
    return "" if are_default(horizons_min) else f"-{text_of(horizons_min)}"


def former_text(sets: tuple[tuple[int, ...], ...]) -> str:
    """Sets of horizons as `BTC_FORMER_HORIZONS_MIN` has them.

    >>> former_text(((1, 2), (5,)))
    '1,2/5'
    """
    return "/".join(map(text_of, sets))


def minutes_text(minutes: int) -> str:
    """A number of minutes in figures.

    >>> minutes_text(1), minutes_text(30)
    ('1 minute', '30 minutes')
    """
    return f"{minutes} minute{'s' * (minutes > 1)}"


def minutes_word(minutes: int) -> str:
    """A number of minutes in words as far as these are short.

    >>> minutes_word(5), minutes_word(30)
    ('five minutes', '30 minutes')
    """
    word = _WORDS.get(minutes, str(minutes))
    return f"{word} minute{'s' * (minutes > 1)}"


def all_text(horizons_min: tuple[int, ...]) -> str:
    """All horizons in words.

    >>> all_text((1, 2, 3, 4, 5)), all_text((2, 10, 30)), all_text((15,))
    ('1 to 5 minutes', '2, 10 and 30 minutes', '15 minutes')
    """
    first, last = horizons_min[0], horizons_min[-1]
    if len(horizons_min) > 2 and last - first == len(horizons_min) - 1:
        return f"{first} to {last} minutes"
    listed = ", ".join(map(str, horizons_min[:-1]))
    return f"{listed} and {last} minutes" if listed else minutes_text(last)


def are_those_of(variables: Mapping[str, str]) -> bool:
    """Whether variables, such as those of an env file, have the horizons of this process. Raises `ValueError`."""
    found = parse(variables.get(VARIABLE, "")), parse_former(variables.get(FORMER_VARIABLE, ""))
    return found == (HORIZONS_MIN, FORMER_MIN)


def _in_force() -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], str]:
    """The horizons of this process and the former ones, from the environment, else from the env file, else the defaults."""
    values: dict[str, str | None] = {}
    env_file = os.environ.get("BTC_ENV_FILE")
    if env_file and not {VARIABLE, FORMER_VARIABLE} <= os.environ.keys():
        from dotenv import dotenv_values  # noqa: PLC0415 - processes in containers have no env file

        values = dotenv_values(env_file) if Path(env_file).is_file() else {}
    given, former = (os.environ.get(name, values.get(name)) or "" for name in (VARIABLE, FORMER_VARIABLE))
    try:
        return parse(given), parse_former(former), ""
    except ValueError as error:
        return DEFAULT_MIN, (), str(error)


HORIZONS_MIN, FORMER_MIN, PROBLEM = _in_force()
"""The horizons of every forecast, ascending; the sets that rows from before a change of the setting have; and why the text of the
setting cannot be read, empty if it can."""
