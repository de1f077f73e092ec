"""MLflow's server as the one process that the stack and the containers start."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.paths import ROOT
from tests.serving_process import free_port
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.service


def test_it_answers_to_the_allowed_hosts_and_to_no_other(tmp_path: Path) -> None:
    """In containers its clients name it `mlflow`; a page of another site in a browser cannot reach it."""
    port = free_port()
    command = [sys.executable, "-m", "stack.mlflow_server", "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--artifacts-destination",
        str(tmp_path / "artifacts"),
        "--allowed-hosts",
        f"mlflow:{port},127.0.0.1:{port}",
    ]
    database = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | database)

    def status_for(host: str) -> int:
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/registered-models/search"
        try:
            return httpx.get(url, headers={"Host": host}, timeout=10.0).status_code
        except httpx.TransportError:
            return 0

    try:
        wait_for(lambda: status_for(f"127.0.0.1:{port}") == httpx.codes.OK, "an answer of MLflow")
        assert status_for(f"mlflow:{port}") == httpx.codes.OK
        assert status_for("elsewhere.example") == httpx.codes.FORBIDDEN
    finally:
        server.terminate()
        server.wait(timeout=30)
