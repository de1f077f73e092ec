"""The marks of stores: each process checks those that it uses, and one that was away before the first write to it."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

import pyarrow as pa
import pytest

from btc_assets import resources
from btc_core.errors import ConfigError, QuestDBError, ServiceError, StoreError
from btc_core.league.states import write_states
from btc_core.names import WorkerName
from btc_core.service_settings import QuestdbSettings
from btc_core.settings import Settings
from btc_core.stores import origin, redis_rows
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from serving import __main__ as api
from streaming.__main__ import STORES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # Dagster's resources

OWN, OTHER = "live-kraken", "sim-kraken"


class FakeStore:
    """A store that is away until it gets a mark."""

    mark: str | None = None
    asked = 0

    def read(self) -> str:
        self.asked += 1
        if self.mark is None:
            raise ServiceError("it does not answer")
        return self.mark


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStore]:
    made = FakeStore()
    one = origin.Store("store of the test", "a mark", made.read, lambda _mark: None)
    monkeypatch.setattr(origin, "_stores", lambda _settings, _names: [one])
    monkeypatch.setattr(origin, "_checked", set())
    monkeypatch.setattr(origin, "_unchecked", {})
    assert Settings().exchange.origin == OWN
    return made


def _write_table() -> None:
    with (
        QuestDB(Settings().questdb, 1.0) as db,
        mock.patch.object(db, "_open_sender"),
        mock.patch("btc_core.stores.questdb._encoded"),
    ):
        db.write("of_a_test", pa.table({"price": [1.0]}))


def _write_object() -> None:
    with mock.patch.object(ObjectStore, "__init__", return_value=None), mock.patch.object(ObjectStore, "_request"):
        made = ObjectStore()  # type: ignore[call-arg]
        made._settings = Settings().store
        made.put("key", b"")


def redis_client() -> mock.MagicMock:
    return mock.MagicMock(settings=Settings().redis)


WRITES: dict[str, tuple[str, Callable[[], None], type[ServiceError]]] = {
    "table": (origin.TABLES, _write_table, QuestDBError),
    "object": (origin.OBJECTS, _write_object, StoreError),
    "newest row": (origin.NEWEST_ROWS, lambda: redis_rows.replace(redis_client(), {}, 1), ServiceError),
    "states of the league": (origin.NEWEST_ROWS, lambda: write_states(redis_client(), []), ServiceError),
}


@pytest.mark.parametrize("kind", WRITES)
def test_a_store_that_was_away_is_checked_before_the_first_write_to_it(store: FakeStore, kind: str) -> None:
    name, write, refusal = WRITES[kind]
    (unchecked,) = origin.check_once(Settings(), name)
    assert "could not be checked: it does not answer" in unchecked
    with pytest.raises(refusal, match="could not be checked"):
        write()
    store.mark = OTHER
    with pytest.raises(ConfigError, match="holds the data of 'sim-kraken'"):
        write()
    store.mark = OWN
    write()
    asked = store.asked
    write()
    assert store.asked == asked, "a store that has been checked is not asked again"


def test_a_write_to_a_store_that_nobody_had_to_check_asks_nothing(store: FakeStore) -> None:
    for _name, write, _refusal in WRITES.values():
        write()
    assert store.asked == 0


def test_a_store_that_is_away_holds_up_no_other_of_its_kind(store: FakeStore) -> None:
    elsewhere = Settings(questdb=QuestdbSettings(http_url="http://127.0.0.1:1"))
    assert origin.check_once(elsewhere, origin.TABLES)
    _write_table()
    assert store.asked == 1


def test_every_process_checks_what_it_uses() -> None:
    assert origin.OBJECTS in STORES[WorkerName.FORECAST], "it stores the models that serve"
    assert all(origin.LOG in stores for stores in STORES.values())
    assert set(api.STORES) == {origin.TABLES, origin.NEWEST_ROWS, origin.OBJECTS}


def test_the_api_checks_a_store_once_it_answers_and_ends_if_it_holds_other_data(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", signals.append)

    def pass_time(_pause_s: float) -> None:
        store.mark = OTHER

    monkeypatch.setattr(api, "time", SimpleNamespace(sleep=pass_time))
    assert origin.check_once(Settings(), origin.OBJECTS)
    api.check_unchecked_stores()
    assert signals == [signal.SIGTERM]


@pytest.mark.parametrize(
    "use",
    [
        lambda: resources.Environment().check_log(),
        lambda: resources.Lake().connect(),
        lambda: resources.Database().connect(),
    ],
)
def test_dagster_checks_a_store_until_it_has_answered(
    store: FakeStore, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "settings", Settings)
    use()
    use()
    assert store.asked == 2
    store.mark = OTHER
    with pytest.raises(ConfigError, match="holds the data of 'sim-kraken'"):
        use()
    store.mark = OWN
    use()
    asked = store.asked
    use()
    assert store.asked == asked
