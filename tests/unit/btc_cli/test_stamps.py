"""OpenTimestamps files of roots, made by the real client `ots` with a calendar that stands in for the public ones."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentimestamps.core.notary import BitcoinBlockHeaderAttestation, PendingAttestation
from opentimestamps.core.op import OpAppend, OpSHA256
from opentimestamps.core.serialize import BytesSerializationContext, StreamDeserializationContext
from opentimestamps.core.timestamp import DetachedTimestampFile, Timestamp

from btc_cli import stamps
from btc_cli.verify import verify
from btc_core.errors import ConfigError, InvalidInput
from tests.http_server import listening

pytestmark = pytest.mark.unit

ROOTS = f"2026-11-28 BTC/USD {'ab' * 32} closed 2026-11-29T00:06:00Z\n"
NONCE = bytes(range(16))
HEIGHT = 900_000


class Calendar(http.server.BaseHTTPRequestHandler):
    """Promises to put each digest into a block, as a public calendar does."""

    def do_POST(self) -> None:
        digest = self.rfile.read(int(self.headers["Content-Length"]))
        stamp = Timestamp(digest)
        promised = stamp.ops.add(OpAppend(NONCE)).ops.add(OpSHA256())
        promised.attestations.add(PendingAttestation(f"http://{self.headers['Host']}"))
        context = BytesSerializationContext()
        stamp.serialize(context)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(context.getbytes())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stamped(tmp_path: Path) -> tuple[Path, str]:
    """A `.ots` file that the client made, and the address of its calendar."""
    file = tmp_path / "roots.txt"
    file.write_text(ROOTS)
    ots = Path(sys.executable).with_name("ots")
    with listening(Calendar) as url:
        command = [ots, "--no-cache", "--no-bitcoin", "stamp", "-c", url, "-m", "1", file]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "no_proxy": "*"})
    return file.with_name("roots.txt.ots"), url


def with_block(path: Path) -> str:
    """Complete a promised stamp with a block, as `ots upgrade` does; returns the Merkle root of the block."""
    with path.open("rb") as file:
        stamp = DetachedTimestampFile.deserialize(StreamDeserializationContext(file))
    promised = stamp.timestamp
    while promised.ops:
        (promised,) = promised.ops.values()
    block = promised.ops.add(OpSHA256())
    block.attestations.add(BitcoinBlockHeaderAttestation(HEIGHT))
    context = BytesSerializationContext()
    stamp.serialize(context)
    path.write_bytes(context.getbytes())
    return block.msg[::-1].hex()


def test_a_new_stamp_names_its_calendar(stamped: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    path, url = stamped
    assert stamps.read_stamp(path) == stamps.Stamp({}, (url,), 0)
    verify(str(path))
    said = capsys.readouterr().out
    assert "the hash fits" in said
    assert f"… The calendar {url} promised" in said


def test_a_complete_stamp_names_the_block_as_the_client_does(
    stamped: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _url = stamped
    root = with_block(path)
    assert stamps.read_stamp(path).blocks == {HEIGHT: root}
    verify(str(path))
    assert f"Bitcoin block {HEIGHT} if the Merkle root of that block is {root}" in capsys.readouterr().out
    ots = Path(sys.executable).with_name("ots")
    info = subprocess.run([ots, "info", path], check=True, capture_output=True, text=True).stdout
    assert f"# Bitcoin block merkle root {root}" in info


def test_a_changed_or_missing_file_of_roots_is_refused(stamped: tuple[Path, str]) -> None:
    path, _url = stamped
    roots = path.with_suffix("")
    roots.write_text(ROOTS.replace("ab", "ac"))
    with pytest.raises(InvalidInput, match=r"stamps a file with the hash .*, and .*roots\.txt has"):
        verify(str(path))
    roots.unlink()
    with pytest.raises(InvalidInput, match=r"roots\.txt: No such file .* have to lie beside each other"):
        verify(str(path))


@pytest.mark.parametrize("damage", [lambda raw: raw[1:], lambda raw: raw[:-3], lambda raw: raw + b"x"])
def test_a_damaged_stamp_is_refused(stamped: tuple[Path, str], damage: object) -> None:
    path, _url = stamped
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InvalidInput, match=r"roots\.txt\.ots is no OpenTimestamps file"):
        verify(str(path))


def test_without_the_package_the_message_says_what_to_install(
    stamped: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentimestamps.core.notary", None)
    with pytest.raises(ConfigError, match="make add PACKAGES=opentimestamps"):
        verify(str(stamped[0]))
