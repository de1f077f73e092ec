"""The commands that the pages show, and what becomes of each: a test runs it, or a reason says why no test can.

A code block without a language holds commands, one a line. In a block of the language `console`, commands follow `$ `, and
the other lines are what they print. Every command of `btc` is parsed by the command line itself, whether it runs or not
(`tests/unit/docs/test_commands.py`). `tests/stack/test_whole_system.py` runs the commands of `RUN` in a whole system.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from btc_cli.app import app
from btc_core.clock import from_ns, now_ns
from stack.ports import DEFAULT_PORTS
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PAGES = sorted(
    (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "deploy/kubernetes/README.md")),
        *(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "reference"),
    )
)
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
DATE = r"20\d\d-\d\d-\d\d"

RUN = (
    r"btc (status|doctor|models|features|imports|alert check)",
    r"btc logs (?!league)[\w-]+( -n \d+)?( \| .*)?",
    r"btc deadletters( --last \d+)?",
    r"btc (backfill|migrate) .*--dry-run",
    r"btc seals DATE",
    r"btc export bars .*",
    r"btc (record --out|replay) frames.txt.*",
    r"btc at TIME.*",
    r"btc fault .*",
    r"btc mcp --help",
    r"TOKEN=.*",
    r"curl (-o bars.parquet )?(-sN? )?['\"]?http://127.0.0.1:.*",
)
"""Commands that a whole system runs. DATE and TIME stand for any day and any time of day."""

ELSEWHERE = {
    r"btc features (add|check) .*": "tests/unit/btc_cli/test_features.py::test_every_command_of_the_page_does_what_it_says",
    r"btc models add .*": "tests/unit/btc_cli/test_league.py::test_every_command_of_the_page_does_what_it_says",
    r"btc status --data-dir .*": "tests/stack/test_whole_system.py::test_status_lists_every_component_as_healthy",
    r"btc up --exchange sim .*": "tests/stack/test_whole_system.py::system",
    r"btc down.*": "tests/stack/test_whole_system.py::system",
    r"curl -X POST .*/retrain": "tests/stack/test_whole_system.py::test_retrain_needs_the_token_and_runs_to_its_end",
    r"(\.venv/bin/)?btc init .*": "tests/unit/btc_cli/test_app.py::test_init_creates_a_stack_and_says_how_to_start_it",
    r"kubectl create configmap -n btc alert-rules .*": "tests/unit/deploy/test_kubernetes.py"
    "::test_alerts_of_the_user_are_a_config_map_that_also_sets_their_variable",
    r"btc alert test": "tests/unit/serving/test_alerts.py::test_a_test_message_reaches_every_contact_and_a_failure_is_shown",
    r"(BTC_\S+ )*btc (verify|roots) .*": "tests/service/btc_core/days/test_forecast_proofs.py"
    "::test_the_command_line_verifies_a_forecast_a_file_and_a_day_and_says_what_is_wrong",
    r"btc rotate-secrets .*": "tests/faults/test_rotation.py::test_a_rotation_of_all_secrets_loses_no_message_and_ends_the_old_ones",
    r"deploy/secret-files .*": "tests/stack/test_composition.py::test_with_secrets_in_files_no_container_shows_one",
    r"(\.venv/bin/python -m pip install --target |PYTHONPATH=)var/readers .*": "tests/unit"
    "/btc_core/days/test_backtest_files.py::test_a_catalog_holds_every_quote_and_trade",
    r"deploy/kubernetes/set-images .*": "tests/unit/deploy/test_kubernetes_images.py::test_every_image_gets_the_tag_and_a_job_its_name",
    r"btc replay --day .*": "tests/service/btc_assets/test_sealed_assets.py"
    "::test_an_archived_day_is_replayed_and_compared_with_the_rows_of_the_stream",
    r"btc undo-seal .*": "tests/service/btc_assets/test_sealed_assets.py"
    "::test_a_seal_that_would_change_most_of_a_day_is_refused_until_a_person_insists",
    r"btc restore --from .*": "tests/service/btc_assets/test_sealed_assets.py"
    "::test_days_lost_with_questdb_are_restored_and_proven",
    r"btc (backup|restore --all) .*": "tests/service/btc_cli/test_restore_all.py"
    "::test_a_system_is_rebuilt_from_a_copy_at_a_second_place",
    r"btc evaluate --stored .*": "tests/service/btc_cli/test_evaluate.py"
    "::test_the_models_are_judged_on_sealed_days_with_and_without_the_stream",
    r"(BTC_\S+ )?btc evaluate --bars .*": "tests/unit/btc_core/models/test_evaluation.py"
    "::test_the_command_finds_the_skill_of_the_models_and_writes_every_figure",
    r"btc restart .*": "tests/service/stack/test_dagster_storage.py::test_a_restart_of_postgres_is_survived",
    r"btc models promote .*": "tests/service/streaming/test_user_model_serves.py"
    "::test_an_entry_that_passes_the_gate_serves_and_its_stand_in_takes_over_while_it_is_down",
    r"btc (promote|rollback) .*": "tests/service/btc_cli/test_promote.py"
    "::test_the_commands_move_the_champion_and_move_it_back_with_their_reasons",
    r"btc import-bars .*": "tests/service/btc_cli/test_imports.py"
    "::test_bars_are_stored_once_and_carry_the_id_of_their_import",
    r"btc import-trades .*": "tests/service/btc_cli/test_imports.py"
    "::test_files_that_share_a_burst_within_a_second_give_each_trade_once",
    r"btc undo-import .*": "tests/service/btc_cli/test_imports.py"
    "::test_imports_over_one_another_are_undone_in_any_order",
    r"btc export-day .* --to hftbacktest .*": "tests/service/serving/test_data.py"
    "::test_btc_export_day_writes_every_quote_and_trade_from_either_store",
    r"btc export-day .* --to parquet .*": "tests/service/serving/test_data.py"
    "::test_btc_export_day_writes_each_table_of_a_sealed_day_with_the_rows_that_its_proof_counts",
    r"btc backfill (?!.*--dry-run).*": "tests/service/btc_assets/test_sealed_assets.py"
    "::test_days_lost_with_questdb_are_restored_and_proven",
    r"btc evaluate-pretrained .*": "tests/unit/btc_cli/test_pretrain.py"
    "::test_the_scores_of_bars_are_printed_and_written_by_age_and_month",
}
"""Commands that another test runs, or a command of the same kind, and the name of that test."""

NOT_RUN = {
    "It follows a live exchange.": (r"btc up.*", r"BTC_\S+ (BTC_\S+ )?btc up.*", r"curl -s 'https://api.kraken.com.*"),
    "It runs until somebody ends it.": (r"btc logs .* -f", r"btc mcp", r"dask (scheduler|worker) .*"),
    "It is a target of make, which installs packages.": (r"make .*",),
    "It installs packages or downloads a program.": (r"(uv )?pip .*", r"npx .*", r"for image .*"),
    "It changes what the machine runs.": (r"sudo .*", r"systemctl .*", r"journalctl .*", r"btc service .*", r"kill -9 PID"),
    "It needs a container engine or a cluster.": (r"docker .*", r"kubectl .*", r"helm .*", r".*inputs.sh .*", r"cp deploy/.*"),
    "It opens an editor or a browser, or changes the shell.": (r"nano .*", r"\$EDITOR .*", r"vi .*", r"alias .*", r"export .*", r"cd .*",
        r"PATH=.* jupyter lab .*"),
    "It uses a repository or a service on the internet.": (r"git .*", r"ots .*"),
    "It moves or removes the data of a system.": (r"mv .*", r"rm .*", r"mkdir .*"),
    "It changes the secrets of a system.": (r"(export )?NEW=.*", r"for NAME .*", r"sed -i .*"),
    "It needs a feature or a model of the reader.": (r"btc export user_features .*", r"btc logs league .*"),
    "It names a message that only the reader's system has.": (r"btc deadletters --show .*",),
    "It needs nautilus_trader, which the reader installs; tests/unit/btc_core/days/test_backtest_files.py tests the rows.": (
        r"btc export-day .* --to nautilus .*",),
    "It works for minutes or hours.": (r"btc run d.*", r"python -m benchmarks.*"),
    "It needs servers of somebody else.": (r"btc doctor --env-file .*", r"BTC_ENV_FILE=.*", r"curl .*https://forecasts.example[:/].*"),
    "It writes settings of a machine, or shows what is written later.": (r"printf .*", r"install -m .*", r"tail .*"),
    "It shows the machine, not the system.": (r"(top|ps|df|du|timedatectl).*",),
}  # fmt: skip
"""Why no test runs a command. The command line parses the `btc` commands among them."""

EXIT_CODES = {"btc status": {0, 3}, "btc doctor": {0, 1}}
"""Exit codes that the pages document, where 0 is not the only good one. A worker may be starting, and a machine too small."""


@dataclass(frozen=True)
class Command:
    """A command as a page shows it."""

    page: Path
    text: str

    @property
    def shape(self) -> str:
        """The text with DATE and TIME in place of its days and times."""
        return re.sub(DATE, "DATE", re.sub(rf"{DATE}T[\d:]+", "TIME", self.text))

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text}"


def commands() -> list[Command]:
    """Every command of every page."""
    return [
        Command(page, text)
        for page in PAGES
        for _indent, language, body in BLOCK.findall(page.read_text())
        if language in {"", "console"}
        for text in _texts(language, body)
    ]


def to_run() -> list[Command]:
    """The commands that a whole system runs, each once, in the order of the pages."""
    return list({each.text: each for each in commands() if matches(RUN, each)}.values())


def queries(page: Path) -> list[str]:
    """Every statement in the SQL of a page."""
    blocks = [body for _indent, language, body in BLOCK.findall(page.read_text()) if language == "sql"]
    statements = [re.sub(r"--.*", "", body).split(";") for body in blocks]
    return [text.strip() for texts in statements for text in texts if text.strip()]


def matches(patterns: tuple[str, ...], command: Command) -> bool:
    """Return whether one of the patterns is the whole command."""
    return any(re.fullmatch(pattern, command.shape, re.DOTALL) for pattern in patterns)


def _texts(language: str, body: str) -> Iterator[str]:
    """The commands of a block, without comments. A quoted text or a loop continues a command on the next line."""
    text = ""
    for line in body.splitlines():
        if language == "console" and not line.startswith("$ "):
            continue
        text += re.split(r"(?:^|\s+)#\s", line.strip().removeprefix("$ "))[0] + "\n"
        if _ends(text):
            yield from filter(None, [text.strip()])
            text = ""
    assert not text, f"this command does not end: {text}"


def _ends(text: str) -> bool:
    try:
        words = shlex.split(text)
    except ValueError:  # an open quotation
        return False
    return "for" not in words[:1] or "done" in words


def words_of_btc(text: str) -> list[str] | None:
    """The arguments if the command is one of `btc`, without what its output is piped into."""
    words = shlex.split(text.partition(" | ")[0].partition(" && ")[0])
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words[1:] if words and words[0] in {"btc", ".venv/bin/btc"} else None


def run(command: Command, ports: Mapping[str, int], directory: Path) -> str:
    """Run a command in a system with these ports, as a shell in `directory` would, and return what it prints.

    Its days become yesterday and today, its time a moment ago, and its ports, market, component and version of a model those
    of the system. `BTC_DATA_DIR` names the system, and the first directory of PATH has a `btc`.
    """
    first, pipe, rest = _in_system(command.text, ports).partition(" | ")
    words = words_of_btc(first)
    if words is None:
        return _shell(f"{first.replace('curl ', 'curl --fail-with-body ', 1)}{pipe}{rest}", "", directory)
    done = CliRunner().invoke(app, words, catch_exceptions=False)  # a second less than a process of its own
    good = EXIT_CODES.get(command.text, {0})
    assert done.exit_code in good, f"{command}\n{first}\n{done.output}"
    return _shell(rest, done.output, directory) if pipe else done.output


def _in_system(text: str, ports: Mapping[str, int]) -> str:
    now = from_ns(now_ns()).astimezone(UTC)
    text = re.sub(rf"{DATE}T(?!00:00:00)[\d:]+", f"{now - timedelta(seconds=30):%Y-%m-%dT%H:%M:%S}", text)
    days = sorted(set(re.findall(DATE, text)))
    for day in days:
        # The end of a range is excluded by the API and included by `btc`.
        ago = 0 if day == f"{now:%Y-%m-%d}" or ("&to=" in text and day == days[-1]) else 1
        text = text.replace(day, f"{now - timedelta(days=ago):%Y-%m-%d}")
    for name, port in DEFAULT_PORTS.items():
        text = text.replace(f"127.0.0.1:{port}/", f"127.0.0.1:{ports[name]}/")
    text = re.sub(r"ETH/USD|BTC/USDT@binance-perp", "BTC/USD", text)
    return re.sub(r"(--model |model=)\d+", r"\g<1>1", text.replace("logs NAME", "logs api"))


def _shell(text: str, given: str, directory: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail\n{text}"],  # noqa: S607 - our own pages
        input=given, capture_output=True, text=True, cwd=directory, timeout=60, check=False,
    )  # fmt: skip
    nothing_found = {1} if given or "grep -v" in text else set()  # a log without an error is a good log
    assert done.returncode in {0} | nothing_found, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout
