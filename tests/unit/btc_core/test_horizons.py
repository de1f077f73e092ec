"""The horizons are read from a text with a clear error for each fault, and a process keeps those that it began with."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from btc_core import horizons
from btc_core.errors import ConfigError, OtherHorizons
from btc_core.models.targets import BID_TARGETS, RV_TARGETS
from btc_core.names import HEADLINE_MIN, HORIZONS_MIN, STORED_HEADLINES_MIN, STORED_HORIZONS_MIN
from btc_core.settings import load_settings

ROOT = Path(__file__).parents[3]


def other_variables() -> dict[str, str]:
    """The environment without settings of the project, and without options for this run of pytest."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BTC_", "PYTEST_"))}


def test_every_valid_set_is_read_as_it_was_written() -> None:
    draw = random.Random(7)
    for _ in range(500):
        count = draw.randint(1, horizons.MOST)
        chosen = tuple(sorted(draw.sample(range(1, horizons.LONGEST_MIN + 1), count)))
        assert horizons.parse(horizons.text_of(chosen)) == chosen
        assert horizons.parse_former(horizons.former_text((chosen, (5,)))) == (chosen, (5,))


def test_every_text_is_read_as_valid_horizons_or_refused() -> None:
    draw = random.Random(8)
    for _ in range(3_000):
        text = "".join(draw.choice("0123456789,, -.x") for _ in range(draw.randint(0, 12)))
        try:
            found = horizons.parse(text)
        except ValueError:
            continue
        assert found == tuple(sorted(set(found)))
        assert 1 <= found[0] <= found[-1] <= 60
        assert len(found) <= 12


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,five", "'five' in '1,five' is not a whole number of minutes"),
        ("1,,2", "'' in '1,,2' is not a whole number of minutes"),
        ("1.5", "'1.5' in '1.5' is not a whole number of minutes"),
        ("0,5", "the horizon 0 in '0,5' is not between 1 and 60 minutes"),
        ("5,61", "the horizon 61 in '5,61' is not between 1 and 60 minutes"),
        ("5,2", "the horizons in '5,2' do not ascend; write 2,5"),
        ("5,5", "'5,5' has 5 more than once"),
        ("1,2,3,4,5,6,7,8,9,10,11,12,13", "has 13 horizons, and there can be at most 12"),
    ],
)
def test_a_bad_text_is_refused_with_what_is_wrong(text: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"minutes|ascend|once|most") as found:
        horizons.parse(text)
    assert reason in str(found.value)
    monkeypatch.setenv("BTC_HORIZONS_MIN", text)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    assert "BTC_HORIZONS_MIN" in str(refused.value)
    assert reason in str(refused.value)


def test_the_default_is_one_to_five_minutes_and_has_the_targets_that_it_always_had() -> None:
    assert HORIZONS_MIN == STORED_HORIZONS_MIN == (1, 2, 3, 4, 5)
    assert (HEADLINE_MIN, STORED_HEADLINES_MIN) == (5, (5,))
    assert tuple(f"rv_1m_grid_{h}m" for h in range(1, 6)) == RV_TARGETS, "they are part of the digest of the recipe"
    assert tuple(f"bid_{h}m_bps" for h in range(1, 6)) == BID_TARGETS


def test_settings_with_other_horizons_than_the_process_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_HORIZONS_MIN", "2,10,30")
    with pytest.raises(
        OtherHorizons,
        match=r"the settings say BTC_HORIZONS_MIN=2,10,30 .*this process was started with BTC_HORIZONS_MIN=1,2,3,4,5",
    ) as found:
        load_settings()
    assert found.value.environment == {"BTC_HORIZONS_MIN": "2,10,30", "BTC_FORMER_HORIZONS_MIN": ""}


def test_a_process_takes_the_horizons_of_its_env_file_and_those_of_its_environment_win(tmp_path: Path) -> None:
    file = tmp_path / "stack.env"
    file.write_text("BTC_HORIZONS_MIN=2,10,30\nBTC_FORMER_HORIZONS_MIN=1,2,3,4,5\n")
    code = "from btc_core.names import HORIZONS_MIN, STORED_HORIZONS_MIN, STORED_HEADLINES_MIN as s; print(HORIZONS_MIN, STORED_HORIZONS_MIN, s)"
    known = other_variables()
    for given, wanted in (
        ({}, "(2, 10, 30) (1, 2, 3, 4, 5, 10, 30) (5, 30)"),
        ({"BTC_HORIZONS_MIN": "60"}, "(60,) (1, 2, 3, 4, 5, 60) (5, 60)"),
    ):
        environment = known | {"BTC_ENV_FILE": str(file), "PYTHONPATH": str(ROOT)} | given
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == wanted


def test_with_other_horizons_tables_labels_models_and_outcomes_follow() -> None:
    known = other_variables()
    environment = known | {
        "BTC_HORIZONS_MIN": "2,10,30",
        "BTC_FORMER_HORIZONS_MIN": "1,2,3,4,5",
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).with_name("other_horizons.py")),
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_columns_of_former_horizons_are_empty_in_new_rows() -> None:
    code = (
        "from btc_core.tables import rows; from btc_core.tables.catalogue import PREDICTION_OUTCOMES as table; "
        "print(*[each.name for each in table.columns if rows._is_former(each.name)])"
    )
    known = other_variables()
    given = {"BTC_HORIZONS_MIN": "5,10", "BTC_FORMER_HORIZONS_MIN": "1,2,3,4,5", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=known | given, capture_output=True, text=True, check=True)
    former = set(done.stdout.split())
    assert {"bid_ar_5m_bps", "qlike_model_5m", "qlike_harx_5m", "sigma_1m_bps", "bid_return_4m_bps"} <= former
    assert (
        not {"sigma_5m_bps", "bid_return_5m_bps", "sigma_10m_bps", "bid_ar_10m_bps", "qlike_model_10m", "symbol"}
        & former
    )
