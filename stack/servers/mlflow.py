"""The MLflow server: experiments and registered models.

Its tables are in PostgreSQL, its files in the object store.
Clients reach artifacts through it, so they need no keys of the object store.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from btc_core.stores.s3 import encryption_arguments
from stack.component import Component, Context
from stack.health_checks import http_check
from stack.ports import HOST, port_of

if TYPE_CHECKING:
    from btc_core.service_settings import StoreSettings
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
            *("-m", "stack.mlflow_server"),
            *("--host", HOST, "--port", str(port_of(url))),
            *("--artifacts-destination", f"s3://{settings.store.mlflow_bucket}"),
        ),
        env=_environment(settings),
        waits_for=("postgres", "store"),
        ports=(port_of(url),),
        url=url,
        check=http_check(f"{url}/health", "MLflow"),
        after_forecasts=True,
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
        **postgres.tls_environment,
        **_store_environment(settings.store),
        # Its job runner evaluates language models; it would start five more processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MALLOC_ARENA_MAX": "2",
        # There is one writer at a time; the default pool keeps five connections.
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "2",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar for each file would fill the log
    }


def _store_environment(store: StoreSettings) -> dict[str, str]:
    """How MLflow reaches the object store: the settings of ours, in its own variables and in those of boto3."""
    keys = {
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key.get_secret_value(),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    optional = {
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint_url,
        "AWS_PROFILE": store.profile,
        "AWS_CA_BUNDLE": store.ca_file,
        "MLFLOW_S3_UPLOAD_EXTRA_ARGS": json.dumps(encryption) if (encryption := encryption_arguments(store)) else "",
    }
    return {
        "AWS_DEFAULT_REGION": store.region,
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": store.addressing,
        **(keys if store.access_key else {}),
        **{name: value for name, value in optional.items() if value},
    }
