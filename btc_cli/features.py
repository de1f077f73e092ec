"""`btc features`: the user's own features, each a Python file that the features worker computes at every minute close.

What does not belong here: the check of a file (`btc_core.features.user.check`), and the features of the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli.league import runs_in_containers, train_now
from btc_cli.options import DataDir, open_stack
from btc_core.errors import InvalidInput, StackError
from btc_core.features.user import files, folder
from btc_core.features.user.check import BUDGET_US, check
from btc_core.league.folder import entries_in
from btc_core.names import WorkerName

if TYPE_CHECKING:
    from btc_core.features.user.files import FeatureFile
    from stack.runtime import Stack

File = Annotated[Path, typer.Argument(help="Python file with NAME, UNIT, MEANING, MINUTES and the function feature.")]
SHOWN_VALUES = 5
WARM_UP = "about a day of the log is read again, which takes seconds to minutes"


def features(context: typer.Context, data_dir: DataDir = None) -> None:
    """List the user's own features with their units, meanings and versions.

    `add` installs one, `check` only checks a file, and `remove` takes one out.
    """
    if context.invoked_subcommand is not None:
        return
    place = open_stack(data_dir).settings.user_features
    found = folder.features_in(place)
    for each in found:
        typer.echo(f"{each.name} [{each.unit}] {each.version}: {each.meaning}; reads {each.minutes} minutes")
    if not found:
        typer.echo(f"there are no features in {place}; `btc features add FILE` adds one")


def check_file(file: File) -> None:
    """Check a file as `add` does, and install nothing: its form, look-ahead, purity and speed. It needs no stack."""
    _checked(file)


def add(file: File, data_dir: DataDir = None) -> None:
    """Check a feature of your own, install it, and let the features worker compute it from now on.

    A file of the same NAME replaces the former one. The models of the league are trained with the feature, and do not forecast before.
    """
    stack = open_stack(data_dir)
    feature = _checked(file)
    path = folder.store(stack.settings.user_features, feature)
    done = f"{feature.name} {feature.version} is installed ({path})"
    typer.echo(done)
    _restart(stack, done)


def remove(name: Annotated[str, typer.Argument(help="NAME of the feature.")], data_dir: DataDir = None) -> None:
    """Remove a feature. Its stored values stay."""
    stack = open_stack(data_dir)
    path = folder.remove(stack.settings.user_features, name)
    done = f"{name} was removed ({path})"
    typer.echo(done)
    _restart(stack, done)


def _checked(path: Path) -> FeatureFile:
    feature = files.read_feature(path)
    typer.echo(f"checking {path.name}: it is compiled, and run on made-up markets whose future is then changed …")
    try:
        found = check(feature)
    except InvalidInput as error:
        msg = f"{error}; nothing was installed"
        raise InvalidInput(msg) from error
    values = ", ".join("NaN" if value is None else f"{value:.4g}" for value in found.examples[:SHOWN_VALUES])
    typer.echo(
        f"{feature.name} [{feature.unit}] depends on {feature.minutes} closed minutes and on nothing else, and takes "
        f"{found.value_us:.1f} of {BUDGET_US:g} µs. Values on a made-up market: {values}"
    )
    return feature


def _restart(stack: Stack, done: str) -> None:
    """Restart the worker that reads the folder when it starts, and train the league, which follows the folder.

    Raises `StackError`, which says what is `done` nevertheless, if a worker does not start.
    """
    has_league = bool(entries_in(stack.settings.user_models))
    command = f"`docker compose --env-file {stack.layout.env_file} restart features`"
    if runs_in_containers(stack):
        typer.echo(f"the containers of this system run; restart the worker with {command}; {WARM_UP}")
        if has_league:
            train_now(stack.settings)
        return
    if not stack.running:
        typer.echo(f"the stack is down; `btc up` starts it with these features, as {command} does in containers")
        return
    names = [name for name in stack.components() if name.split("_")[0] == WorkerName.FEATURES]
    typer.echo(f"restarting {' and '.join(names)}; {WARM_UP}")
    failures = [failure for name in names if (failure := _failed_restart(stack, name))]
    if has_league:
        train_now(stack.settings)
    if failures:
        failed = "; ".join(f"{name}: {error}" for name, error in failures)
        commands = " and ".join(f"`btc restart {name}`" for name, _ in failures)
        msg = (
            f"{done}, but not every worker that computes features was restarted with it. {failed}\n"
            f"Once that is solved, run {commands}; until then, forecasts may be missing"
        )
        raise StackError(msg)


def _failed_restart(stack: Stack, name: str) -> tuple[str, StackError] | None:
    try:
        stack.restart(name)
    except StackError as error:
        return name, error
    return None
