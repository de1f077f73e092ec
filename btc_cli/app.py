"""The command `btc`: the table of its commands, and how their errors reach the user.

A command's module is imported when the command runs (`btc_cli/lazy.py`), so those modules import what they need at
their top. What does not belong here: what a command does.
"""

from __future__ import annotations

import os
import sys

import typer

from btc_cli.lazy import Entry, LazyGroup
from btc_core import horizons
from btc_core.errors import BtcError, ConfigError, OtherHorizons

DATA, MODELS, TROUBLE = "Data", "Models", "What can go wrong"

COMMANDS = (
    Entry("up", "btc_cli.stack:up", "Start everything and wait until the stack is healthy and serves forecasts."),
    Entry("down", "btc_cli.stack:down", "Stop everything and keep the data."),
    Entry("status", "btc_cli.stack:status", "Show the state, address, process and memory of every component."),
    Entry("logs", "btc_cli.stack:logs", "Show the end of a component's log."),
    Entry("restart", "btc_cli.stack:restart", "Restart one component and wait until it is healthy."),
    Entry(
        "run",
        "btc_cli.stack:run",
        "Run a program with the stack's settings in its environment: `btc run dg launch --assets sealed_silver`.",
        is_launcher=True,
    ),
    Entry("init", "btc_cli.stack:init", "Create a data directory with settings and new secrets, and start nothing."),
    Entry(
        "service",
        "btc_cli.service:service",
        "Run the stack as a service of systemd, which starts it at boot and again after a failure.",
        subcommands=tuple((name, f"btc_cli.service:{name}") for name in ("install", "status", "remove", "run")),
    ),
    Entry(
        "rotate-secrets",
        "btc_cli.rotate_secrets:rotate_secrets",
        "Give servers of a running stack new secrets without losing a message, and refuse the old ones.",
    ),
    Entry("doctor", "btc_cli.doctor:doctor", "Check the machine and the stack, and say how to fix what is wrong."),
    Entry(
        "alert",
        "btc_cli.alert:alert",
        "Send a test message to every contact of BTC_ALERT_URLS, or check the file BTC_ALERT_RULES.",
    ),
    Entry(
        "replay",
        "btc_cli.recordings:replay",
        "Compute the feature rows of a recording or of an archived day with the code that the live stream uses.",
        DATA,
    ),
    Entry(
        "record",
        "btc_cli.recordings:record",
        "Write all messages of the Kafka topic `market.events` to a file for `btc replay`.",
        DATA,
    ),
    Entry(
        "import-bars",
        "btc_cli.imports:import_bars",
        "Import minute bars into the table that the models are trained on.",
        DATA,
    ),
    Entry(
        "backfill",
        "btc_cli.backfill:backfill",
        "Seal and verify past days again, or fetch the trades of days that were never streamed.",
        DATA,
    ),
    Entry(
        "restore",
        "btc_cli.tables:restore",
        "Restore days of tables from the object store and verify each against its manifest.",
        DATA,
    ),
    Entry(
        "backup",
        "btc_cli.backup:backup",
        "Copy all objects, the databases and the settings to a directory or to a bucket elsewhere.",
        DATA,
    ),
    Entry(
        "export",
        "btc_cli.export:export",
        "Write stored rows of a market to a file, from QuestDB and, for older days, from the object store.",
        DATA,
    ),
    Entry(
        "export-day",
        "btc_cli.export_day:export_day",
        "Write the quotes and trades of a day for hftbacktest or nautilus_trader, or all tables of a sealed day as Parquet files.",
        DATA,
    ),
    Entry(
        "mcp",
        "btc_cli.assistant:mcp",
        "Let an assistant read forecasts, skill, models, operations, the doctor and the runbook (Model Context Protocol).",
        DATA,
    ),
    Entry(
        "seals", "btc_cli.seals:seals", "List the rows that sealing a day has replaced, by seal, newest first.", DATA
    ),
    Entry("undo-seal", "btc_cli.seals:undo_seal", "Write back the rows that a seal of a day has replaced.", DATA),
    Entry("import-trades", "btc_cli.imports:import_trades", "Import trades and the minute bars made from them.", DATA),
    Entry(
        "verify",
        "btc_cli.verify:verify",
        "Verify what was forecast at a time, on a day, or in a file of evidence, back to the frames of the exchange.",
        DATA,
    ),
    Entry(
        "at",
        "btc_cli.at:at",
        "Show the forecast of a past moment, what it was made from, and what another model would have said.",
        DATA,
    ),
    Entry("roots", "btc_cli.verify:roots", "Write the Merkle roots of days to a file that can be time-stamped.", DATA),
    Entry("imports", "btc_cli.imports:imports", "List the imports with their ids, oldest first.", DATA),
    Entry(
        "undo-import",
        "btc_cli.imports:undo_import",
        "Remove the rows that an import wrote and what was computed from them.",
        DATA,
    ),
    Entry("migrate", "btc_cli.tables:migrate", "Upgrade the tables and views to the version of this program.", DATA),
    Entry(
        "models",
        "btc_cli.models:models",
        "List the registered models of each market with their aliases, gate results and promotions, and the league.",
        MODELS,
        subcommands=(
            ("add", "btc_cli.league:add"),
            ("remove", "btc_cli.league:remove"),
            ("promote", "btc_cli.league:promote"),
        ),
    ),
    Entry(
        "features",
        "btc_cli.features:features",
        "List the user's own features with their units, meanings and versions.",
        MODELS,
        subcommands=(
            ("add", "btc_cli.features:add"),
            ("check", "btc_cli.features:check_file"),
            ("remove", "btc_cli.features:remove"),
        ),
    ),
    Entry(
        "promote",
        "btc_cli.models:promote",
        "Make a model version the champion; forecasts and the API use it within seconds.",
        MODELS,
    ),
    Entry("rollback", "btc_cli.models:rollback", "Make the previous champion the champion again.", MODELS),
    Entry(
        "evaluate",
        "btc_cli.evaluate:evaluate",
        "Backtest the models on minute bars, refitted as they go, and print how good the forecasts were.",
        MODELS,
    ),
    Entry(
        "evaluate-pretrained",
        "btc_cli.evaluate_pretrained:evaluate_pretrained",
        "Score the pre-trained model on minute bars of a market, from its first hour on, beside HARX, HAR and EWMA.",
        MODELS,
    ),
    Entry(
        "pretrain",
        "btc_cli.pretrain:pretrain",
        "Fit the pre-trained volatility model on minute bars of one or more markets, and write its file.",
        MODELS,
    ),
    Entry(
        "deadletters",
        "btc_cli.deadletters:deadletters",
        "List the messages that the workers could not process, with their reasons and origins.",
        TROUBLE,
    ),
    Entry(
        "redrive",
        "btc_cli.deadletters:redrive",
        "Send dead letters again that can be processed now, for example after an upgrade.",
        TROUBLE,
    ),
    Entry(
        "fault",
        "btc_cli.faults:fault",
        "Make the simulated exchange misbehave: `btc fault stall seconds=5`.",
        TROUBLE,
    ),
)


class Commands(LazyGroup):
    """The commands of `btc`."""

    entries = COMMANDS


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def btc() -> None:
    """Live BTC/USD market data, features and forecasts: the servers, workers, models and API."""


def main() -> None:
    """Run the command line; an error of this project is printed to stderr without a traceback, with exit code 1.

    A command about a stack with other horizons than its own environment begins again with those of the stack.
    """
    try:
        if horizons.PROBLEM:
            msg = f"{horizons.VARIABLE} or {horizons.FORMER_VARIABLE} cannot be used: {horizons.PROBLEM}"
            raise ConfigError(msg)
        app(prog_name="btc")
    except OtherHorizons as error:
        os.environ.update(error.environment)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very command
    except BtcError as error:
        sys.stderr.write(f"btc: {error}\n")
        sys.exit(1)
