"""The asset of the league: every file is trained in every market, and one that fails stops no other."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from btc_core.days.training_rows import TrainingRows
from btc_core.errors import StoreError
from btc_core.league.folder import EntryFile, store
from btc_core.league.process import EntryFailed
from btc_core.models.dataset import StreamRows
from btc_core.settings import Settings, UserSettings
from btc_core.stores.dagster import market_tags
from tests.unit.btc_core.models.test_bundle import market

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets import league_models
    from btc_assets.resources import Database, Environment, Lake, Registry

if TYPE_CHECKING:
    from btc_core.models.dataset import Frame

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]
FOLDER: list[Path] = []


class MyFolder(Environment):
    def get(self) -> Settings:
        return Settings(user=UserSettings(dir=str(FOLDER[-1])))


def run(tmp_path: Path, *names: str) -> dg.ExecuteInProcessResult:
    FOLDER.append(tmp_path)
    for name in names:
        store(tmp_path / "models", EntryFile(name, Path(f"{name}.py"), b"# a model"))
    resources = {"environment": MyFolder(), "database": Database(), "lake": Lake(), "registry": Registry()}
    with tempfile.TemporaryDirectory() as scratch, dg.DagsterInstance.ephemeral(tempdir=scratch) as instance:
        return dg.materialize(
            [league_models.league_models], resources=resources, instance=instance, tags=market_tags(["BTC/USD"])
        )


def test_one_model_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, str, int]] = []

    def train(_settings: Settings, entry: EntryFile, symbol: str, frame: Frame, _own: object) -> dict[str, Any]:
        if entry.name == "broken":
            raise EntryFailed("broken.py, line 3: ValueError: no rows")
        if entry.name == "unlucky":
            raise StoreError("MLflow does not answer")
        trained.append((entry.name, symbol, len(frame.origin_ns)))
        return {"version": "4"}

    monkeypatch.setattr(league_models, "market_history", lambda *_: TrainingRows(market(1_000), StreamRows.none()))
    monkeypatch.setattr(league_models, "train_entry", train)
    result = run(tmp_path, "broken", "good", "unlucky")
    assert result.success
    assert [(name, symbol) for name, symbol, _ in trained] == [("good", "BTC/USD")]
    (materialized,) = result.asset_materializations_for_node("league_models")
    assert materialized.metadata["good_version"].value == "4"
    assert materialized.metadata["broken_error"].value == "broken.py, line 3: ValueError: no rows"
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.description == "broken: broken.py, line 3: ValueError: no rows\nunlucky: MLflow does not answer"


def test_without_models_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(league_models, "market_history", None)
    result = run(tmp_path)
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.description) == (True, league_models.NO_ENTRIES)


def test_the_schedule_skips_a_day_without_models(tmp_path: Path) -> None:
    FOLDER.append(tmp_path)
    context = dg.build_schedule_context(resources={"environment": MyFolder()})
    assert isinstance(league_models.daily_league(context), dg.SkipReason)
    store(tmp_path / "models", EntryFile("mine", Path("mine.py"), b"# a model"))
    request = league_models.daily_league(context)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["dagster/asset_partition_range_start"] == "BTC/USD"
