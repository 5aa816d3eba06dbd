#!/usr/bin/env bash
# What schemathesis makes of /openapi.json, with all of its checks, on a server with the bundled model.
#
#   bench/serve_schemathesis.sh [SEED [EXAMPLES]]
#
# It installs schemathesis into a temporary folder, and fails if a check fails. It is run by one worker: with several,
# Python 3.11 reports a mismatch of the parser's depth out of hypothesis. The server is that of the active environment.
set -euo pipefail
seed=${1:-1} examples=${2:-8}
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT

python -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet schemathesis==4.32.5

python -m cogview serve --port 0 --data "$folder/served" >"$folder/out" 2>"$folder/log" &
server=$!
for _ in $(seq 240); do
  address=$(sed -n 's/^cogview: ready at \(.*\)$/\1/p' "$folder/out")
  [ -z "$address" ] || break
  kill -0 "$server" || { cat "$folder/log"; exit 1; }
  sleep 0.5
done

cd "$folder"
PYTHONPATH=$here SCHEMATHESIS_HOOKS=schemathesis_hooks \
  "$folder/venv/bin/schemathesis" --config-file "$here/schemathesis.toml" run "${address}openapi.json" \
  --checks all --seed "$seed" --max-examples "$examples" --continue-on-failure --request-timeout 60
# Nothing that was sent is an error of the server's.
if grep -q Traceback "$folder/log"; then
  cat "$folder/log"
  exit 1
fi
