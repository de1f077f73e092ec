"""Where the QuestDB client sends rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from btc_core.errors import QuestDBError
from btc_core.service_settings import QuestdbSettings
from btc_core.stores import questdb
from btc_core.stores.questdb import QuestDB
from tests.http_server import answering

if TYPE_CHECKING:
    from collections.abc import Callable


class Sender:
    """Keeps what it was configured with."""

    confs: list[str]

    @classmethod
    def from_conf(cls, conf: str) -> Sender:
        cls.confs.append(conf)
        return cls()

    def establish(self) -> None:
        pass

    def new_buffer(self) -> Sender:
        return self

    def dataframe(self, *_: object, **__: object) -> None:
        pass

    def flush(self, *_: object, **__: object) -> None:
        pass

    close: Callable[..., None] = flush


@pytest.mark.parametrize(
    ("url", "begins"),
    [
        ("http://127.0.0.1:9000", "http::addr=127.0.0.1:9000;"),
        ("https://questdb.example", "https::addr=questdb.example:443;"),
        ("https://questdb.example:9000", "https::addr=questdb.example:9000;"),
    ],
)
def test_rows_go_where_reads_go_encrypted_or_not(url: str, begins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questdb, "Sender", Sender)
    Sender.confs = []
    db = QuestDB(QuestdbSettings(http_url=url))
    db.write("a_table", pd.DataFrame({"ts_event": [pd.Timestamp("2026-07-01")]}))
    assert [conf[: len(begins)] for conf in Sender.confs] == [begins]
    assert str(db._http.base_url) == url


@pytest.mark.parametrize("body", [b"", b'{"error":"export was cancelled"}'], ids=["empty", "words"])
def test_an_answer_that_is_no_parquet_file_is_an_error_of_the_server(body: bytes) -> None:
    error = pytest.raises(QuestDBError, match=f"answered {len(body)} bytes that are no Parquet file .* to: SELECT 1")
    with answering(lambda _: (200, body)) as url, QuestDB(QuestdbSettings(http_url=url)) as db, error:
        db.query("SELECT 1")
