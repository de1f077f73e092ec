#!/bin/bash
# Starts PostgreSQL and creates its files at the first start, by the rules of the image postgres:18.
set -euo pipefail
data=/var/lib/postgresql/18/docker
as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)
chown postgres: /var/lib/postgresql
if [[ ! -e $data/PG_VERSION ]]; then
  "${as_postgres[@]}" mkdir -p "$data"
  password=$(mktemp)
  echo "$POSTGRES_PASSWORD" >"$password"
  chown postgres "$password"
  "${as_postgres[@]}" initdb -D "$data" -U "$POSTGRES_USER" --auth=scram-sha-256 --encoding=UTF8 --locale=C --pwfile="$password"
  rm "$password"
  echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
fi
exec "${as_postgres[@]}" "$@" -D "$data" -c "listen_addresses=*"
