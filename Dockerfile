# One image per kind of process, each with only what it imports; `docker compose build` builds them all.

FROM python:3.11.14-slim-bookworm AS build
COPY --from=ghcr.io/astral-sh/uv:0.9.13 /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
RUN uv venv --quiet /venv
WORKDIR /build

FROM build AS streaming-packages
COPY deploy/locks/streaming.lock ./
RUN uv pip sync --python /venv/bin/python --require-hashes streaming.lock

FROM build AS serving-packages
COPY deploy/locks/serving.lock ./
RUN uv pip sync --python /venv/bin/python --require-hashes serving.lock

FROM build AS assets-packages
COPY deploy/locks/assets.lock ./
RUN uv pip sync --python /venv/bin/python --require-hashes assets.lock

FROM build AS mlflow-packages
COPY deploy/locks/mlflow.lock ./
RUN uv pip sync --python /venv/bin/python --require-hashes mlflow.lock

FROM python:3.11.14-slim-bookworm AS runtime
RUN useradd --uid 10001 --create-home btc \
    && mkdir -p /app /var/lib/btc \
    && chown btc:btc /var/lib/btc
COPY deploy/answers deploy/with-secrets /usr/local/bin/
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER btc

FROM runtime AS streaming
COPY --from=streaming-packages /venv /venv
COPY btc_core btc_core
COPY streaming streaming
CMD ["python", "-m", "streaming", "features"]

FROM streaming AS exchange
COPY exchange_simulator exchange_simulator
CMD ["python", "-m", "exchange_simulator", "--host", "0.0.0.0", "--port", "8765", "--data-dir", "/var/lib/btc"]

FROM runtime AS serving
COPY --from=serving-packages /venv /venv
COPY btc_core btc_core
COPY serving serving
CMD ["python", "-m", "serving"]

FROM runtime AS assets
COPY --from=assets-packages /venv /venv
COPY btc_core btc_core
COPY btc_assets btc_assets
COPY stack/__init__.py stack/files.py stack/first_env.py stack/first_training.py stack/layout.py stack/ports.py \
     stack/postgres_connection.py stack/prepare.py stack/server_addresses.py stack/
COPY deploy/compose.sim.env deploy/
COPY stack/servers/dagster.yaml deploy/dagster.containers.yaml deploy/workspace.yaml /etc/dagster/
USER root
RUN cat /etc/dagster/dagster.containers.yaml >> /etc/dagster/dagster.yaml
USER btc
ENV DAGSTER_HOME=/etc/dagster DAGSTER_DISABLE_TELEMETRY=yes DAGSTER_GRPC_TIMEOUT_SECONDS=300 \
    DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS=30
CMD ["python", "-m", "dagster", "api", "grpc", "--module-name", "btc_assets.definitions", "--host", "0.0.0.0", "--port", "4000"]

FROM runtime AS mlflow
ENV MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false
COPY --from=mlflow-packages /venv /venv
COPY stack/__init__.py stack/mlflow_server.py stack/
CMD ["python", "-m", "stack.mlflow_server"]

FROM prom/prometheus:v3.7.3 AS prometheus
COPY deploy/prometheus/prometheus.yml deploy/prometheus/rules.yml /etc/prometheus/
COPY deploy/prometheus/targets/compose.yml /etc/prometheus/targets.yml

FROM grafana/grafana:12.3.0 AS grafana
COPY deploy/grafana/provisioning /etc/grafana/provisioning
COPY deploy/grafana/dashboards /var/lib/grafana/dashboards
USER root
RUN mkdir -p /var/lib/grafana/data && chown 472:0 /var/lib/grafana/data
USER 472
