"""The client as a distribution of its own: what it imports, and what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from typing import TYPE_CHECKING

from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SERVER_LIBRARIES = (
    "boto3", "btc_core", "confluent_kafka", "dagster", "flask", "llvmlite", "mlflow", "numba", "psycopg2", "questdb",
    "redis", "scipy", "sklearn", "waitress", "xgboost",
)  # fmt: skip


def test_importing_the_client_imports_no_server_library_and_no_part_of_the_servers() -> None:
    code = f"import sys, btc_client; print([name for name in {SERVER_LIBRARIES!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_has_the_client_alone_and_needs_three_packages(tmp_path: Path) -> None:
    source = shutil.copytree(ROOT / "btc_client", tmp_path / "btc_client", ignore=shutil.ignore_patterns("__pycache__"))
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("btc_forecast_client-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = {f"btc_client/{path.name}" for path in source.glob("*.py")}
    assert {name for name in names if not name.startswith("btc_forecast_client-")} == modules | {"btc_client/py.typed"}
    needed = tomllib.loads((source / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {each.partition(">")[0] for each in needed} == {"httpx", "msgspec", "pyarrow"}


def test_the_client_has_the_version_of_the_system() -> None:
    ours, theirs = (tomllib.loads((ROOT / path / "pyproject.toml").read_text()) for path in ("btc_client", "."))
    assert ours["project"]["version"] == theirs["project"]["version"]
