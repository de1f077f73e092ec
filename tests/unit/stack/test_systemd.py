"""The systemd unit: what it says, and that systemd reads it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from stack.layout import Layout
from stack.systemd import unit_of

if TYPE_CHECKING:
    from pathlib import Path

    from stack.systemd import Scope


def _lines(layout: Layout, scope: Scope, directory: Path) -> list[str]:
    return unit_of(layout, scope, "root", directory).text.splitlines()


def test_the_unit_of_an_account_starts_at_boot_and_again_after_a_failure(layout: Layout, tmp_path: Path) -> None:
    unit = unit_of(layout, "user", "somebody", tmp_path)
    assert unit.path.parts[-4:-1] == (".config", "systemd", "user") or "XDG" in str(unit.path)
    lines = unit.text.splitlines()
    for line in (
        "Restart=on-failure",
        "StartLimitIntervalSec=0",
        "LimitNOFILE=65536",
        "KillMode=mixed",
        "WantedBy=default.target",
    ):
        assert line in lines
    (command,) = [line for line in lines if line.startswith("ExecStart=")]
    assert command.endswith(f"-m btc_cli service run --data-dir {layout.data_dir}")
    assert not any(line.startswith(("User=", "ExecStartPre=")) for line in lines)


def test_the_unit_of_the_machine_runs_as_the_owner_and_raises_the_memory_maps_as_root(
    layout: Layout, tmp_path: Path
) -> None:
    lines = _lines(layout, "system", tmp_path)
    assert {"User=root", "WantedBy=multi-user.target", "After=network-online.target"} <= set(lines)
    (before,) = [line for line in lines if line.startswith("ExecStartPre=")]
    assert before.startswith("ExecStartPre=-+")
    assert "1048576 > /proc/sys/vm/max_map_count" in before


def test_directories_with_spaces_and_percent_signs_are_quoted(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "my data 5%")
    layout.create("sim")
    text = unit_of(layout, "user", "root", tmp_path).text
    assert f'"{tmp_path}/my data 5%%"' in text
    assert unit_of(layout, "user", "root", tmp_path).name == "btc-forecast-my-data-5-.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("scope", ["user", "system"])
def test_systemd_reads_the_unit_without_a_complaint(tmp_path: Path, scope: Scope) -> None:
    layout = Layout(tmp_path / "a b")
    layout.create("sim")
    unit = unit_of(layout, scope, "root", tmp_path)
    file = tmp_path / unit.name
    file.write_text(unit.text)
    command = ["systemd-analyze", "verify", f"--{scope}", "--man=no", "--recursive-errors=no", str(file)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    broken = tmp_path / "broken.service"
    broken.write_text(unit.text.replace("Restart=on-failure", "Restart=whenever"))
    command[-1] = str(broken)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert "restart specifier" in done.stderr, "the tool would find a mistake"
