"""A certificate of the API that cannot serve, and what the user is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from btc_core.api_settings import ApiSettings
from btc_core.errors import ConfigError
from btc_core.stores.api_connection import server_context
from tests.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def problem(cert: Path, key: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        server_context(ApiSettings(cert_file=str(cert), key_file=str(key)))
    return str(raised.value)


def test_a_valid_certificate_can_serve(authority: Authority) -> None:
    made = authority.certificate("api", "forecasts.example")
    assert server_context(ApiSettings(cert_file=str(made.cert), key_file=str(made.key)))
    assert server_context(ApiSettings(cert_file=str(made.both), key_file=str(made.both)))


def test_a_certificate_that_cannot_serve_is_refused_with_the_reason(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.certificate("api", "localhost"), authority.certificate("other", "localhost")
    old = authority.certificate("old", "localhost", days_left=-0.5)
    assert problem(tmp_path / "no.crt", good.key) == (
        f"BTC_API_CERT_FILE names {tmp_path}/no.crt, which cannot be read: No such file or directory"
    )
    assert f"BTC_API_KEY_FILE names {tmp_path}, which cannot be read: Is a directory" in problem(good.cert, tmp_path)
    assert "cannot be used: [X509: KEY_VALUES_MISMATCH]" in problem(good.cert, other.key)
    assert "(BTC_API_KEY_FILE) cannot be used: [SSL] PEM lib" in problem(good.key, good.key)
    assert problem(old.cert, old.key) == (
        f"clients refuse the certificate {old.cert} (BTC_API_CERT_FILE): certificate has expired"
    )


def test_a_certificate_without_its_key_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="BTC_API_CERT_FILE and BTC_API_KEY_FILE belong together"):
        ApiSettings(cert_file="api.crt")
