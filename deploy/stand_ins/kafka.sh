#!/bin/bash
# Starts Kafka with a configuration from the environment, by the rule of the image apache/kafka: KAFKA_A_B is a.b.
set -euo pipefail
file=/tmp/server.properties
env | sed -n 's/^KAFKA_\([A-Z_]*\)=\(.*\)$/\1 \2/p' | while read -r name value; do
  [[ $name == HEAP_OPTS ]] || echo "$(tr 'A-Z_' 'a-z.' <<<"$name")=$value"
done >"$file"
run=(java -cp "/opt/kafka/libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn)
if [[ ! -e $KAFKA_LOG_DIRS/meta.properties ]]; then
  "${run[@]}" kafka.tools.StorageTool format -t YnRjLWZvcmVjYXN0LTAwMQ -c "$file"
fi
# shellcheck disable=SC2086 - several options in one variable, as the image has it
exec "${run[@]:0:1}" $KAFKA_HEAP_OPTS "${run[@]:1}" kafka.Kafka "$file"
