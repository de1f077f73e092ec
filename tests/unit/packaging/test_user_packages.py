"""`make add`: packages of the user are kept in a file of their own, and are installed again after every change of a lock."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UV = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *"--requirement "*) cat "$(echo "$*" | sed 's/.*--requirement //')" >> {log} ;; esac
! grep -q broken {log}
"""
"""Stands for uv: writes down what it is asked for, and refuses a package whose name contains `broken`."""


class Clone:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "uv.log"
        for name in ("Makefile", "requirements.lock", "requirements-dev.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        for path in (folder / ".venv" / "bin" / "python", folder / ".venv" / ".stamps" / "run"):
            path.parent.mkdir(parents=True)
            path.touch()
        (folder / "tools").mkdir()
        (folder / "tools" / "uv").write_text(UV.format(log=self._log))
        (folder / "tools" / "uv").chmod(0o755)

    def make(self, *arguments: str) -> tuple[int, str]:
        """The exit code of make, and what uv was asked for."""
        self._log.write_text("")
        path = f"{self.folder / 'tools'}:{os.environ['PATH']}"
        done = subprocess.run(
            [shutil.which("make") or "make", *arguments], cwd=self.folder, env={**os.environ, "PATH": path}, check=False
        )
        return done.returncode, self._log.read_text()

    @property
    def packages(self) -> list[str]:
        file = self.folder / "requirements-user.txt"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_packages_are_added_within_the_versions_of_the_lock(clone: Clone) -> None:
    code, asked = clone.make("add", "PACKAGES=mcp>=2.3,<3 arch")
    assert code == 0
    assert "pip install" in asked
    assert "--constraints requirements.lock" in asked
    assert clone.packages == ["arch", "mcp>=2.3,<3"]
    clone.make("add", "PACKAGES=arch lightgbm")
    assert clone.packages == ["arch", "lightgbm", "mcp>=2.3,<3"]


def test_a_package_that_cannot_be_installed_is_not_kept(clone: Clone) -> None:
    clone.make("add", "PACKAGES=arch")
    code, _ = clone.make("add", "PACKAGES=broken-package")
    assert code != 0
    assert clone.packages == ["arch"]
    assert clone.make("add")[0] != 0, "without a name there is nothing to add"


@pytest.mark.parametrize("stamp", ["run", "dev"])
def test_a_new_lock_removes_no_package_of_the_user(clone: Clone, stamp: str) -> None:
    clone.make("add", "PACKAGES=arch")
    (clone.folder / ".venv" / ".stamps" / "run").unlink()
    code, asked = clone.make(f".venv/.stamps/{stamp}")
    assert code == 0
    assert asked.index("pip sync") < asked.rindex("--requirement requirements-user.txt")
    assert asked.rstrip().endswith("arch")
