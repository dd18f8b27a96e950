#!/bin/sh
# The old demo: a job is published through RabbitMQ's management API, and its statuses are read from the queue of its own name
# (job_status_ID), as CodeBench's README has it. Any worker at that broker does: AMQP_URL=amqp://stoker:stoker@127.0.0.1 stoker worker
# usage: demo.sh [COMMAND]   MANAGEMENT (http://127.0.0.1:15672), RABBITMQ_USER, RABBITMQ_PASSWORD and WAIT (60, seconds) say more
set -eu
management=${MANAGEMENT:-http://127.0.0.1:15672}
account=${RABBITMQ_USER:-stoker}:${RABBITMQ_PASSWORD:-stoker}
wait=${WAIT:-60}
command=${1:-echo hello from a job}
id=demo-$$-$(date +%s)
api() { curl -fsS -u "$account" -H 'content-type: application/json' "$@"; }
# Text as JSON has it; once more for JSON inside of JSON.
quoted() { printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g'; }

# Declared as its sender does: what is not there when a status is told is lost.
api -X PUT "$management/api/queues/%2f/job_status_$id" -d '{"durable": false, "auto_delete": false}'
job="{\"id\": \"$id\", \"type\": \"command\", \"command\": \"$(quoted "$command")\"}"
routed=$(api "$management/api/exchanges/%2f/amq.default/publish" -d "{\"properties\": {}, \"routing_key\": \"jobs\",
  \"payload\": \"$(quoted "$job")\", \"payload_encoding\": \"string\"}")
case $routed in
  *'"routed":true'*) echo "sent: $job" ;;
  *) echo "demo: no queue \`jobs\`: no worker is at this broker" >&2
    api -X DELETE "$management/api/queues/%2f/job_status_$id"
    exit 1 ;;
esac

passed=0
while [ "$passed" -lt "$wait" ]; do
  told=$(api "$management/api/queues/%2f/job_status_$id/get" \
    -d '{"count": 10, "ackmode": "ack_requeue_false", "encoding": "auto"}')
  if [ "$told" != "[]" ]; then printf '%s\n' "$told" | tr '}' '\n' | sed -n 's/.*"payload":"\(.*\)/\1/p'; fi
  case $told in
    *'\"done\"'* | *'\"failed\"'*)
      api -X DELETE "$management/api/queues/%2f/job_status_$id"
      case $told in *'\"done\"'*) exit 0 ;; esac
      exit 1 ;;
  esac
  sleep 1
  passed=$((passed + 1))
done
echo "demo: no outcome within $wait s" >&2
api -X DELETE "$management/api/queues/%2f/job_status_$id"
exit 1
