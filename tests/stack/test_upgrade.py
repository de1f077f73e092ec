"""An upgrade of the containers from the version before, and the way back, with data in place.

The version before is the newest tag, else VERSION_BEFORE, unless UPGRADE_FROM names a revision. The composition of that version makes data, is
replaced by that of this version as docs/how-to/containers.md says, and then comes back. It runs where a container engine answers.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from btc_cli.backfill import SEALING_ASSETS
from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.days.lake import kept_days
from btc_core.names import QUANTITIES, ModelKey
from btc_core.registry import served_models
from btc_core.stores.dagster import backfill_status, launch_backfill
from btc_core.stores.mlflow import MlflowClient
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import BID_PREDICTION, BRONZE_TRADES, MINUTE_BARS, SILVER_FEATURES
from btc_core.utc_day import day_of
from tests.composition import (
    API,
    Composition,
    build_images,
    compose_command,
    require_engine,
    wait_for,
    wait_for_forecast,
)
from tests.containers import ONE_SHOT
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btc_core.settings import Settings

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
]

SYMBOL = "BTC/USD"
VERSION_BEFORE = "dfe559d6ee3759ac06bdd5db9b34a8de50973909"
"""The commit that stands for the version before while no version has a tag. No user's model serves in it, and its coverage knows no regimes."""
EARLIER, PRESENT = "before-upgrade", "after-upgrade"
"""The tags of the images."""
CONTINUED = (
    "exchange",
    "ingest",
    "bronze",
    "features",
    "forecast",
    "repair",
    "api",
    "dagster-code",
    "dagster-daemon",
    "mlflow",
)


class Kept(NamedTuple):
    """What no change of the version may lose."""

    trades: int
    feature_rows: int
    forecasts: int
    model_versions: int
    copied_days: int
    bundles: int
    """Objects of the models that served, which forecasts are verified with."""
    checkpoints: int
    """Files of state from which the workers continue."""
    sealing: str
    """The status of the backfill that sealed a day, which is in Dagster's database."""


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)  # noqa: S607 - the git on the PATH


def _revision() -> str:
    newest_tag = _git("describe", "--tags", "--abbrev=0").stdout.decode().strip()
    chosen = os.environ.get("UPGRADE_FROM", "") or newest_tag or VERSION_BEFORE
    found = _git("rev-parse", "--verify", f"{chosen}^{{commit}}")
    if found.returncode and chosen == VERSION_BEFORE:
        pytest.skip(f"this clone has neither a tag nor the commit {VERSION_BEFORE[:12]}")
    assert found.returncode == 0, found.stderr
    return found.stdout.decode().strip()


def _checkout(revision: str, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(_git("archive", revision).stdout)) as archive:
        archive.extractall(folder, filter="data")


def _new_env_file(root: Path, data_dir: Path) -> str:
    """An env file of the simulated system by the version of a checkout."""
    command = [sys.executable, "-m", "btc_cli", "init", "--exchange", "sim", "--data-dir", str(data_dir)]
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (data_dir / "stack.env").read_text() + "\n" + (root / "deploy" / "compose.sim.env").read_text()


def _kept(composition: Composition, backfill: str) -> Kept:
    settings = composition.settings
    with QuestDB(settings.questdb) as db:
        trades, feature_rows, forecasts = (
            int(db.execute(f"SELECT count() FROM {table.name} WHERE symbol = '{SYMBOL}'")[0][0])
            for table in (BRONZE_TRADES, SILVER_FEATURES, BID_PREDICTION)
        )
    client = MlflowClient(settings.mlflow, settings.store)
    versions = sum(len(client.versions(ModelKey(SYMBOL, quantity).name)) for quantity in QUANTITIES)
    with ObjectStore(settings.store) as store:
        days, bundles = len(kept_days(store, MINUTE_BARS.name)), len(store.keys(served_models.FOLDER))
    found = composition.run("exec", "-T", "features", "find", "/var/lib/btc/state", "-type", "f").split()
    sealing = backfill_status(settings, backfill).status
    return Kept(trades, feature_rows, forecasts, versions, days, bundles, len(found), sealing)


def _missing_trades(settings: Settings) -> int:
    """The number of trade ids between the first and the last of this hour that are not stored; -1 if there is no trade."""
    with QuestDB(settings.questdb) as db:
        found = db.execute(
            f"SELECT max(trade_id) - min(trade_id) + 1 - count_distinct(trade_id) FROM {BRONZE_TRADES.name} "
            f"WHERE symbol = '{SYMBOL}' AND ts_event > dateadd('h', -1, now())"
        )
    return -1 if found[0][0] is None else int(found[0][0])


def _champions() -> list[str | None]:
    models = httpx.get(f"{API}/readyz", timeout=10.0).json()["models"]
    return [models[quantity]["version"] for quantity in ("bid", "volatility")]


def _serves(composition: Composition, before: Kept | None, backfill: str) -> Kept:
    """Wait until a version serves forecasts of its own with all that the one before it kept."""
    wait_for_forecast("a forecast that is served by the API")
    for service in CONTINUED:
        composition.wait_healthy(service)
    for service in ONE_SHOT:
        wait_for(lambda service=service: composition.state(service)["Status"] == "exited", f"the end of {service}")
        assert composition.state(service)["ExitCode"] == 0, composition.run("logs", "--tail", "40", service)
    wait_for(lambda: all((version or "").isdigit() for version in _champions()), "registered champions of both models")
    wait_for(
        lambda: _missing_trades(composition.settings) == 0, "the trades that were missed while the version changed"
    )
    wait_for(lambda: _kept(composition, backfill).checkpoints > 0, "a checkpoint of the workers")
    now = _kept(composition, backfill)
    assert min(now[:-1]) > 0, now
    if before is not None:
        assert all(count >= earlier for count, earlier in zip(now[:-1], before[:-1], strict=True)), (before, now)
        assert now.sealing == before.sealing
    return now


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Composition, Composition]]:
    """The composition of the version before, which is started, and that of this version, on the same volumes."""
    require_engine()
    folder = tmp_path_factory.mktemp("upgrade")
    before, now = folder / "before", folder / "now"
    now.mkdir()
    _checkout(_revision(), before)
    env_file = _new_env_file(before, folder / "stack")
    for place in (before, now):
        (place / ".env").write_text(env_file)
    compose_command(before, before)
    command = compose_command(now)
    build_images(EARLIER, before)
    earlier, present = Composition(command, before, EARLIER), Composition(command, now, PRESENT)
    try:
        earlier.up()
        yield earlier, present
    finally:
        present.down()


def test_an_upgrade_and_the_way_back_lose_nothing(both: tuple[Composition, Composition]) -> None:
    earlier, present = both
    wait_for_forecast("a forecast of the version before")
    yesterday = day_of(now_ns() - NS_PER_DAY)
    backfill = launch_backfill(earlier.settings, SEALING_ASSETS, [yesterday], {})
    with ObjectStore(earlier.settings.store) as store:
        wait_for(lambda: yesterday in kept_days(store, MINUTE_BARS.name), f"a verified copy of {yesterday}")
    wait_for(lambda: "COMPLETED" in backfill_status(earlier.settings, backfill).status, "the end of the backfill")
    kept = _serves(earlier, None, backfill)

    # The steps of docs/how-to/containers.md: the images of the other version, its compose file, `up -d`.
    build_images(PRESENT)
    present.up()
    kept = _serves(present, kept, backfill)

    earlier.up()
    _serves(earlier, kept, backfill)
