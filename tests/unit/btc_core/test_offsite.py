"""Which keys and authorities the second place gets: those of its own store alone. And how long copies stay there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from btc_core import offsite
from btc_core.clock import NS_PER_DAY, from_ns
from btc_core.errors import InvalidInput
from btc_core.offsite import open_place
from btc_core.service_settings import OffsiteSettings, StoreSettings
from btc_core.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

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


def test_copies_beyond_the_setting_go_with_the_objects_that_only_they_name(tmp_path: Path) -> None:
    place, now_ns = offsite.Directory(tmp_path), 1_000 * NS_PER_DAY
    for age_days, object_hash in ((40, "aa"), (20, "bb"), (1, "bb")):
        made_ns = now_ns - age_days * NS_PER_DAY
        copied = offsite.CopiedObject(bucket="lake", key="k", size_bytes=1, tag="", sha256=object_hash)
        copy = offsite.Copy(made_at_ns=made_ns, origin="sim-kraken", objects=(copied,), settings_sha256="")
        offsite._write(place, f"copies/{from_ns(made_ns):%Y-%m-%dT%H%M%S}.json", msgspec.json.encode(copy))
        offsite._write(place, f"objects/{object_hash}", b"1")
    assert Settings().backup.copy_days == 30
    offsite._expire(place, now_ns, Settings().backup.copy_days)
    assert (len(place.names("copies")), set(place.names("objects"))) == (2, {"bb"})
    offsite._expire(place, now_ns, 10)
    assert (len(place.names("copies")), set(place.names("objects"))) == (1, {"bb"})
