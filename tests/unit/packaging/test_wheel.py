"""The wheel, installed away from the repository: the command works and finds every file it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("btc_core", "streaming", "serving", "btc_assets", "stack", "exchange_simulator", "btc_cli")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the locked setuptools from a copy, so that nothing of an earlier build is in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel, which sees the packages of this one and no checkout."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    Path(where.stdout.strip(), "locked.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    (home / "bin" / "weed").symlink_to(Path(sys.executable).with_name("weed"))  # as the wheel of the store puts it
    return home / "bin"


def run(*command: str | Path, cwd: Path) -> str:
    own = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607 - whichever git there is
    assert set(tracked.stdout.split()) <= set(zipfile.ZipFile(wheel).namelist())


def test_the_command_works_where_there_is_no_repository(installed: Path, tmp_path: Path) -> None:
    assert "Start everything" in run(installed / "btc", "--help", cwd=tmp_path)
    run(installed / "btc", "init", "--exchange", "sim", "--ports-from", "20000", cwd=tmp_path)
    assert (tmp_path / "var" / "sim" / "stack.env").is_file()


FIND = """
import sys
from pathlib import Path
from stack import jars, layout
from stack.runtime import Stack
import serving.routes.live
assert layout.ROOT.is_relative_to(sys.prefix), layout.ROOT
components = Stack(Path("var/sim")).components()
for name in ("dagster-code", "valkey", "kafka"):
    print(name, *components[name].command)
components["dagster-code"].before()
print(Path("var/sim/dagster/dagster.yaml").read_text())
"""


def test_every_component_finds_its_files_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    run(installed / "btc", "init", "--exchange", "sim", cwd=tmp_path)
    found = run(installed / "python", "-c", FIND, cwd=tmp_path)
    assert "max_concurrent_runs" in found
    assert str(ROOT / "stack") not in found


def test_a_repository_around_the_installed_package_is_not_taken_for_ours(installed: Path) -> None:
    commit = (
        "-c",
        "user.name=somebody",
        "-c",
        "user.email=nobody@localhost",
        "commit",
        "--allow-empty",
        "-m",
        "theirs",
    )
    for arguments in (("init",), commit):
        run("git", *arguments, cwd=installed.parent)
    asked = "from btc_core.version import git_commit; print(git_commit())"
    assert run(installed / "python", "-c", asked, cwd=installed.parent).strip() == ""
    assert run(sys.executable, "-c", asked, cwd=ROOT) == run("git", "rev-parse", "HEAD", cwd=ROOT)
