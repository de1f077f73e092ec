"""`btc models add`, `btc models remove` and `btc models promote`: the user's own models, which compete in the league.

What does not belong here: the check of a file (`btc_core.league.check`), and the registry of models that serve (`models`).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli.options import DataDir, open_stack
from btc_core.errors import InvalidInput, ServiceError, StackError
from btc_core.league import folder
from btc_core.league.states import read_states
from btc_core.names import TRAIN_LEAGUE_JOB, WorkerName
from btc_core.stores.dagster import launch_job, market_tags, run_url
from btc_core.stores.redis_connection import connect
from stack.server_addresses import given_servers

if TYPE_CHECKING:
    from btc_core.league.folder import EntryFile
    from btc_core.league.states import EntryState
    from btc_core.settings import Settings
    from stack.runtime import Stack


def add(
    file: Annotated[Path | None, typer.Argument(help="Python file with the functions fit and predict.")] = None,
    *,
    builtin: Annotated[
        str, typer.Option(help=f"Add a model of the package instead: {', '.join(folder.builtin_names())}.")
    ] = "",
    name: Annotated[str, typer.Option(help="Name in the league. Default: that of the file.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Check a model of your own, add it to the league, and train it.

    A file of the same name replaces the former version. A model of the league forecasts beside the champion. It serves only after
    `btc models promote`, which asks the gate.
    """
    from btc_core.features.user.folder import features_in  # noqa: PLC0415 - imports numba, which the other commands do not need
    from btc_core.league.check import check  # noqa: PLC0415 - imports numba, too

    stack = open_stack(data_dir)
    entry = _entry(file, builtin, name)
    models = stack.settings.user_models
    _check_room(stack.settings, entry)
    typer.echo(f"checking {entry.path.name}: import, fit and forecasts on a small made-up market …")
    own = [file.name for file in features_in(stack.settings.user_features)]
    found = check(entry, stack.settings.league, own)
    path = folder.store(models, entry)
    done = f"{entry.name} {entry.version} is in the league ({path})"
    gives = "σ and quantiles" if found.has_quantiles else "σ alone, so it has no CRPS and no coverage"
    if found.is_sigma_derived:
        gives = "quantiles alone, so the loss judges the σ that follows from them"
    typer.echo(
        f"{done}: it gives {gives}, one forecast takes "
        f"{1_000.0 * found.predict_s:.1f} ms, and its model has {found.model_bytes:,} bytes"
    )
    _start(stack, done)


def remove(
    name: Annotated[str, typer.Argument(help="Name in the league.")],
    data_dir: DataDir = None,
) -> None:
    """Remove a model from the league. Its forecasts and its trained versions stay stored.

    If a version of it serves, that version serves on, without newer fits, until `btc rollback`.
    """
    stack = open_stack(data_dir)
    path = folder.remove(stack.settings.user_models, name)
    typer.echo(f"{name} was removed from the league ({path})")
    if stack.running and not folder.entries_in(path.parent):
        stack.stop_component(WorkerName.LEAGUE.value)


def promote(
    name: Annotated[str, typer.Argument(help="Name in the league.")],
    *,
    symbol: Annotated[str, typer.Option(help="Market, such as ETH/USD. Default: the first that is followed.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Let a model of your own serve the volatility of a market, if it passes the gate of a change.

    The gate judges its live forecasts in the league, of the last 28 days and of its present file. Its stand-in is the
    compiled model that served before it.
    """
    from btc_core.league import promotion  # noqa: PLC0415 - imports numba, which the other commands do not need

    settings = open_stack(data_dir).settings
    followed = settings.exchange.symbols
    if symbol and symbol not in followed:
        msg = f"{symbol} is not followed; this system follows {', '.join(followed)}"
        raise InvalidInput(msg)
    market = symbol or followed[0]
    made = promotion.promote(settings, name, market)
    typer.echo(
        f"{name} passed the gate and is now the champion of {market}, version {made.version} of {made.name}. The forecast worker runs it "
        "within seconds; its stand-in forecasts whatever it does not in time"
    )


def league_lines(settings: Settings) -> list[str]:
    """The entries of the league, one line each; empty without any."""
    entries = folder.entries_in(settings.user_models)
    if not entries:
        return []
    lines = ["[bold underline]League[/]"]
    states: dict[str, EntryState] = {}
    unknown = "its process is not running"
    try:
        with connect(settings.redis) as client:
            states = {state.name: state for state in read_states(client) or ()}
    except ServiceError as error:
        unknown = f"what it does is unknown: {error}"
    for each in entries:
        state = states.get(each.name)
        words = unknown if state is None else f"{state.state}{f': {state.reason}' if state.reason else ''}"
        waiting = (
            "" if state is None or state.version == each.version else f", version {state.version} until it is trained"
        )
        lines.append(f"[bold]{each.name} {each.version}[/]  {words}{waiting}")
    return lines


def _entry(file: Path | None, builtin: str, name: str) -> EntryFile:
    if (file is None) == (not builtin):
        msg = "name one file, as in `btc models add my_model.py`, or one model of the package with --builtin"
        raise InvalidInput(msg)
    if file is not None:
        return folder.read_entry(file, name)
    found = folder.read_builtin(builtin)
    return folder.EntryFile(name, found.path, found.source) if name else found


def _check_room(settings: Settings, entry: EntryFile) -> None:
    names = {each.name for each in folder.entries_in(settings.user_models)}
    if entry.name not in names and len(names) >= settings.league.max_entries:
        msg = (
            f"the league has {len(names)} models, and room for {settings.league.max_entries}: remove one with `btc models "
            "remove NAME`, or raise BTC_LEAGUE_MAX_ENTRIES"
        )
        raise InvalidInput(msg)


def runs_in_containers(stack: Stack) -> bool:
    """Whether servers that take the passwords of this stack's env file run, and this program did not start them."""
    if stack.running or "valkey" in given_servers(stack.settings):  # another Redis says nothing about containers
        return False
    try:
        with connect(stack.settings.redis) as client:
            read_states(client)
    except ServiceError:
        return False
    return True


def _start(stack: Stack, done: str) -> None:
    """Start the league's process if the stack runs, and ask Dagster for a training.

    Raises `StackError`, which says what is `done` nevertheless, if the process does not start.
    """
    if stack.running:
        try:
            stack.start_component(WorkerName.LEAGUE.value)
        except StackError as error:
            msg = (
                f"{done}, but its process did not start, and no training was started: {error}\nOnce that is solved, run "
                "`btc up`, which starts the league. Its models are trained at 00:40 UTC, or at once if you repeat this command"
            )
            raise StackError(msg) from error
    elif runs_in_containers(stack):
        typer.echo(
            "the containers of this system run; start the league, if it does not run yet, with "
            f"`docker compose --env-file {stack.layout.env_file} --profile league up -d`"
        )
    else:
        typer.echo(
            "the stack is down; `btc up` starts the league (in containers, `docker compose --env-file "
            f"{stack.layout.env_file} --profile league up -d`), and Dagster trains the model at 00:40 UTC"
        )
        return
    train_now(stack.settings)


def train_now(settings: Settings) -> None:
    """Ask Dagster to train the models of the league, and say what comes next."""
    try:
        run_id = launch_job(settings, TRAIN_LEAGUE_JOB, market_tags(settings.exchange.symbols))
    except ServiceError as error:
        typer.echo(f"the league is not trained yet: {error}. The job {TRAIN_LEAGUE_JOB} runs each day at 00:40 UTC")
        return
    typer.echo(
        f"the training of the league has started: {run_url(settings, run_id)}. Then it forecasts at each minute close"
    )
