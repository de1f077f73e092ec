"""`python -m stack.mlflow_server`: MLflow's tracking server as one process.

`mlflow server` prepares the database and then starts uvicorn as a child. The parent process stays, with all libraries
loaded. It costs 200 MB of memory and 4 s of processor time at each start. This program does both in one process.
What does not belong here: the addresses, passwords and limits of the server (`stack/servers/mlflow.py`).
"""

from __future__ import annotations

import argparse
import os

import uvicorn
from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES, MLFLOW_SERVER_ALLOWED_HOSTS
from mlflow.store.tracking import DEFAULT_ARTIFACTS_URI

BACKEND_STORE = "MLFLOW_BACKEND_STORE_URI"
"""The variable with the address of the database, as `mlflow server` reads it."""


def main() -> None:
    """Prepare the database, and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m stack.mlflow_server", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--artifacts-destination", required=True, help="such as s3://mlflow")
    parser.add_argument("--allowed-hosts", help="values of the header Host; only the local ones if it is missing")
    args = parser.parse_args()
    if args.allowed_hosts:
        os.environ[MLFLOW_SERVER_ALLOWED_HOSTS.name] = args.allowed_hosts
    # The modules of the server read the allowed hosts when they are imported.
    from mlflow.server import constants  # noqa: PLC0415
    from mlflow.server.handlers import initialize_backend_stores  # noqa: PLC0415

    database = os.environ[BACKEND_STORE]
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.REGISTRY_STORE_URI_ENV_VAR: database,
        constants.ARTIFACT_ROOT_ENV_VAR: DEFAULT_ARTIFACTS_URI,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: args.artifacts_destination,
        MLFLOW_ENABLE_WORKSPACES.name: "false",
    }
    initialize_backend_stores(database, database, DEFAULT_ARTIFACTS_URI)
    uvicorn.run("mlflow.server.fastapi_app:app", host=args.host, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
