#!/bin/bash
# Starts PostgreSQL and creates its files at the first start, by the rules of the image postgres:18.
set -euo pipefail
data=/var/lib/postgresql/18/docker
if [[ ! -e $data/PG_VERSION ]]; then
  mkdir -p "$data"
  password=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:-/dev/null}")}
  initdb -D "$data" -U "$POSTGRES_USER" --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C --pwfile=<(printf '%s\n' "$password")
  echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
fi
exec "$@" -D "$data" -c "listen_addresses=*"
