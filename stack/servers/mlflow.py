"""The MLflow server: experiments and registered models.

Its tables are in PostgreSQL, its files in the object store.
Clients reach artifacts through it, so they need no keys of the object store.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stack.component import Component, Context
from stack.health_checks import http_check
from stack.ports import HOST, port_of

if TYPE_CHECKING:
    from btc_core.settings import Settings


def component(context: Context) -> Component:
    """MLflow as one supervised process."""
    settings = context.settings
    url = settings.mlflow.url

    return Component(
        name="mlflow",
        title="MLflow, experiments and models",
        command=(
            sys.executable,
            *("-m", "mlflow", "server"),
            *("--host", HOST, "--port", str(port_of(url))),
            # One worker of 300 MB is enough for one person and our processes; the default is four.
            *("--workers", "1"),
            *("--serve-artifacts", "--artifacts-destination", f"s3://{settings.store.mlflow_bucket}"),
            *("--uvicorn-opts", "--log-level warning"),
        ),
        env=_environment(settings),
        waits_for=("postgres", "store"),
        ports=(port_of(url),),
        url=url,
        check=http_check(f"{url}/health", "MLflow"),
        before_start=lambda: context.server_dir("mlflow").mkdir(parents=True, exist_ok=True),
        start_timeout_s=120,  # the first start creates 50 tables
    )


def _environment(settings: Settings) -> dict[str, str]:
    postgres = settings.postgres
    return {
        # The password is not part of the address, because addresses end up in logs.
        "MLFLOW_BACKEND_STORE_URI": (
            f"postgresql+psycopg2://{postgres.user}@{postgres.host}:{postgres.port}/{postgres.mlflow_db}"
        ),
        "PGPASSWORD": postgres.password.get_secret_value(),
        "MLFLOW_S3_ENDPOINT_URL": settings.store.endpoint_url,
        "AWS_ACCESS_KEY_ID": settings.store.access_key,
        "AWS_SECRET_ACCESS_KEY": settings.store.secret_key.get_secret_value(),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # Its job runner evaluates language models; it would start five more processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # There is one writer at a time; the default pool keeps five connections per worker.
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "2",
        "GIT_PYTHON_REFRESH": "quiet",
    }
