#!/usr/bin/env bash
# What the charts read: secrets, made from the env file that `btc init` wrote, and files of this repository. Each chart
# gets its secret under the names it wants; no value is an argument of a command, where others could see it.
#
#   make install && .venv/bin/btc init --exchange live --data-dir var/kubernetes
#   deploy/kubernetes/inputs.sh var/kubernetes/stack.env
set -euo pipefail
file=$1
options=(--namespace btc "${@:2}") # as --dry-run=client
deploy=$(dirname "${BASH_SOURCE[0]}")/..

secret() { # its name, and the sed expression that makes its lines of those of the file
    kubectl create secret generic "$1" --from-env-file=<(sed -nE "$2" "$file") "${options[@]}"
}

secret btc '/^BTC_\w+_(USER|PASSWORD|ACCESS_KEY|SECRET_KEY|TOKENS?|FIRST_DAY|URLS|WATCHDOG_URL)=/p'
secret questdb 's/^BTC_QUESTDB_(USER|PASSWORD)=(.*)/QDB_HTTP_\1=\2\nQDB_PG_\1=\2/p
s/^BTC_QUESTDB_READER_PASSWORD=(.*)/QDB_PG_READONLY_USER_ENABLED=true\nQDB_PG_READONLY_USER=reader\nQDB_PG_READONLY_PASSWORD=\1/p'
secret redis 's/^BTC_REDIS_PASSWORD=/default=/p'
secret grafana '1s/.*/admin-user=btc/p; s/^BTC_GRAFANA_PASSWORD=/admin-password=/p'
secret dagster-postgres 's/^BTC_POSTGRES_PASSWORD=/postgresql-password=/p'

kubectl create configmap prometheus-rules --from-file="$deploy/prometheus/rules.yml" "${options[@]}"
kubectl create configmap grafana-dashboards --from-file="$deploy/grafana/dashboards" "${options[@]}"
for kind in alerting dashboards datasources; do
    kubectl create configmap "grafana-provisioning-$kind" --from-file="$deploy/grafana/provisioning/$kind" "${options[@]}"
done
