"""A user's feature is refused when it looks ahead, is impure, slow or wrong, and the message says what, where and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.errors import InvalidInput
from btc_core.features.user import check as checks
from btc_core.features.user.check import check, check_here
from btc_core.features.user.files import read_feature, version_of
from btc_core.features.user.folder import features_in, remove, store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

HEAD = """import numpy as np

NAME = "mine"
UNIT = "1"
MEANING = "an example"
MINUTES = 30


def feature(minutes):
"""
BODY_LINE = HEAD.count("\n") + 1
GOOD = "    return np.nansum(minutes.signed_volume)\n"


def written(folder: Path, body: str, head: str = HEAD) -> Path:
    path = folder / "mine.py"
    path.write_text(head + body)
    return path


def test_a_good_feature_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = check(read_feature(written(tmp_path, GOOD)))
    assert found.value_us < checks.BUDGET_US
    assert None not in found.examples


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    return minutes.close[30] - minutes.close[0]\n", r"mine\.py, line 10: it looks ahead: .* only the minutes after it"),
        ("    return minutes.close[-31]\n", r"mine\.py, line 10: it reads older minutes than it says"),
        ("    minutes.close[0] = 1.0\n    return 1.0\n", r"mine\.py, line 10: .*read-only; copy an array"),
        ("    return minutes.vwap[-1]\n", r"mine\.py, line 10: numba cannot compile it: Unknown attribute 'vwap'"),
        ("    pass\n", "must return one number in every case"),
        ("    return 1.0 / (minutes.close[-1] - minutes.close[0])\n", "in a market that never moves, feature returned inf"),
        (
            "    if np.isnan(minutes.close[-1]):\n        raise ValueError('no close')\n    return 1.0\n",
            r"mine\.py, line 11: in a market in which most minutes have no trade, feature raised ValueError: no close",
        ),
        ("    return np.nan\n", "it would always be NaN"),
    ],
)  # fmt: skip
def test_what_a_feature_does_wrong_is_named_with_its_line(tmp_path: Path, body: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        check_here(read_feature(written(tmp_path, body)))


def test_a_slow_feature_is_refused_with_the_budget(tmp_path: Path) -> None:
    body = "    total = 0.0\n    for k in range(200_000):\n        total += np.sin(minutes.close[k % 30])\n    return total\n"
    with pytest.raises(InvalidInput, match=r"takes \d+ µs for one value, and may take 100 µs"):
        check_here(read_feature(written(tmp_path, body)))


def test_a_feature_that_crashes_or_never_returns_ends_the_check_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="crashed its process"):
        check(read_feature(written(tmp_path, "    return minutes.close[10**9]\n")))
    monkeypatch.setattr(checks, "CHECK_S", 5.0)
    endless = "    k = 0\n    while k < 5:\n        k = (k + 1) % 5\n    return float(k)\n"
    with pytest.raises(InvalidInput, match=r"took longer than 5 s .* Give every loop an end"):
        check(read_feature(written(tmp_path, endless)))


@pytest.mark.parametrize(
    ("head", "body", "reason"),
    [
        (HEAD.replace("numpy as np", "os"), GOOD, r"line 1: a feature can import math and numpy, and not os"),
        (HEAD, "    return np.random.normal()\n", rf"line {BODY_LINE}: a feature cannot use random"),
        (HEAD + "    global last\n", GOOD, "must not keep anything between two calls"),
        (HEAD.replace("MINUTES = 30", "MINUTES = 2000"), GOOD, "line 6: MINUTES is 2000; a feature may read 1 to 1440"),
        (HEAD.replace('"mine"', '"bid"'), GOOD, "line 3: bid is a column of the system"),
        (HEAD.replace('"mine"', '"My Feature"'), GOOD, "line 3: 'My Feature' cannot be the name"),
        (HEAD.replace('UNIT = "1"\n', ""), GOOD, 'it does not say its UNIT; add `UNIT = "1"`'),
        (HEAD.replace("feature(minutes)", "feature(a, b)"), GOOD, "line 9: feature must take one argument"),
        (HEAD.replace("feature(", "other("), GOOD, "it has no function feature"),
        ("print('hello')\n" + HEAD, GOOD, "line 1: beside functions, a file may only have constants"),
        (HEAD.replace("def ", "@staticmethod\ndef "), GOOD, "feature has a decorator"),
        (HEAD + "    return (\n", "", "line 10: '\\(' was never closed"),
    ],
)
def test_a_file_of_another_form_is_refused_without_running_it(
    tmp_path: Path, head: str, body: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_feature(written(tmp_path, body, head))


def test_the_folder_holds_features_by_name_and_their_version_is_that_of_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    first = read_feature(written(tmp_path, GOOD))
    assert store(folder, first) == folder / "mine.py"
    assert [file.source for file in features_in(folder)] == [first.source]
    version = version_of(features_in(folder))
    store(folder, read_feature(written(tmp_path, "    return 2.0\n")))
    assert version_of(features_in(folder)) != version
    (folder / "broken.py").write_text("def feature(")
    assert [file.name for file in features_in(folder)] == ["mine"], "a broken file stops no worker"
    remove(folder, "mine")
    assert version_of(features_in(folder)) == ""
    with pytest.raises(InvalidInput, match="there is no feature mine"):
        remove(folder, "mine")
