"""Which keys and authorities the second place gets: those of its own store alone."""

from __future__ import annotations

import pytest

from btc_core.errors import InvalidInput
from btc_core.offsite import open_place
from btc_core.service_settings import OffsiteSettings, StoreSettings
from btc_core.settings import Settings

pytestmark = pytest.mark.unit


def test_the_key_of_the_own_store_is_never_sent_to_the_second_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_STORE_ACCESS_KEY", "own-key")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "own-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    empty = r"BTC_OFFSITE_ACCESS_KEY is empty, and AWS_ACCESS_KEY_ID holds the key"
    with pytest.raises(InvalidInput, match=empty), open_place(Settings(), "s3://second/btc"):
        pass
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another-key")
    with open_place(Settings(), "s3://second/btc"):
        pass


def test_the_authority_of_the_own_store_does_not_verify_the_second_place() -> None:
    assert StoreSettings().authority is None, "AWS_CA_BUNDLE counts"
    assert OffsiteSettings().authority is True, "AWS_CA_BUNDLE does not count"
