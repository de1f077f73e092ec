"""`btc features`: every command of the how-to about a feature of one's own, and what is refused."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from btc_cli.app import app
from btc_core.clock import NS_PER_S
from btc_core.errors import InvalidInput, StackError
from btc_core.features.user.check import BUDGET_US
from btc_core.features.user.folder import MAX_FEATURES, features_in
from btc_core.features.user.minutes import FIELDS, LONGEST, Minutes
from stack.layout import Layout
from stack.ports import free_ports
from stack.runtime import Stack
from tests.paths import ROOT
from tests.service.workers import quote_frame

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

PAGE = (ROOT / "docs" / "how-to" / "a-feature-of-your-own.md").read_text()
COMMANDS = [line for line in PAGE.splitlines() if re.match(r"btc features(?! add .*--data-dir)", line)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the features of a stack that is down, with the example of the page in the current directory."""
    data_dir = tmp_path / "var" / "live"
    Layout(data_dir).create("sim", free_ports())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BTC_DATA_DIR", str(data_dir))
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "flow_30m.py").write_text(text)
    return data_dir / "user" / "features"


def btc(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_the_page_describes_each_field_as_the_code_does_and_names_no_market() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert {name: rows[name] for name in ("volume", "signed_volume")} == {
        name: FIELDS[name] for name in ("volume", "signed_volume")
    }
    assert not [meaning for meaning in FIELDS.values() if "BTC" in meaning], "the market may be ETH/USD"


def test_every_command_of_the_page_does_what_it_says(folder: Path) -> None:
    assert len(COMMANDS) == 3
    done = [btc(*shlex.split(command)[1:]) for command in COMMANDS]
    assert [each.exit_code for each in done] == [0, 0, 0]
    assert "depends on 30 closed minutes and on nothing else" in done[0].output
    assert "btc up` starts it with these features" in done[1].output
    (file,) = features_in(folder)
    assert f"flow_30m [1] {file.version}: quantity bought by takers" in done[2].output
    (removal,) = re.findall(r"run `btc (features remove flow_30m)`", PAGE)
    assert "was removed" in btc(*shlex.split(removal)).output
    assert features_in(folder) == []
    assert "there are no features" in btc("features").output


def test_a_refused_file_leaves_the_folder_as_it_was(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "flow_30m.py"
    path.write_text(path.read_text().replace("return np.nan", "return minutes.close[30]"))
    with pytest.raises(InvalidInput, match=r"flow_30m\.py, line \d+: it looks ahead: .*; nothing was installed"):
        btc("features", "add", str(path))
    assert list(folder.iterdir()) == []


def test_a_worker_that_does_not_restart_leaves_the_feature_installed_and_the_error_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def restart(_stack: Stack, name: str) -> None:
        asked.append(name)
        if name == "features":
            raise StackError(f"{name} exited while it started")

    monkeypatch.setattr(Stack, "running", property(lambda _: True))
    monkeypatch.setattr(Stack, "components", lambda _: dict.fromkeys(("features", "features_1", "api")))
    monkeypatch.setattr(Stack, "restart", restart)
    with pytest.raises(StackError) as failed:
        btc("features", "add", "flow_30m.py")
    (file,) = features_in(folder)
    assert asked == ["features", "features_1"], "the others are restarted nevertheless"
    said = str(failed.value)
    assert said.startswith(f"flow_30m {file.version} is installed ({folder / 'flow_30m.py'}), but not every worker")
    assert "features: features exited while it started" in said
    assert "run `btc restart features`;" in said


def test_the_page_has_every_array_and_the_limits() -> None:
    named = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \| [^|]+ \|$", PAGE.split("| array |")[1], re.MULTILINE)[:10])
    )
    assert tuple(named[: len(Minutes._fields)]) == Minutes._fields == tuple(FIELDS)
    assert f"1 to {LONGEST}" in PAGE
    assert f"**{BUDGET_US:g} µs**" in PAGE
    assert f"room for {MAX_FEATURES} features" in PAGE


@pytest.mark.usefixtures("folder")
def test_a_recording_is_replayed_with_the_features_of_the_user(tmp_path: Path) -> None:
    btc("features", "add", "flow_30m.py")
    frames = [quote_frame("BTC/USD", 1_700_000_000 * NS_PER_S + k * 20 * NS_PER_S, 60_000.0 + k) for k in range(9)]
    (tmp_path / "frames.jsonl").write_bytes(b"\n".join(frames))
    assert btc("replay", "frames.jsonl", "--out", "rows.parquet").exit_code == 0
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert rows.schema.names[-1] == "flow_30m"
    assert rows["flow_30m"].null_count + sum(value != value for value in rows["flow_30m"].to_pylist()) == len(rows) == 9  # noqa: PLR0124 - NaN
