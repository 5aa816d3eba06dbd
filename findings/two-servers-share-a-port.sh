#!/usr/bin/env bash
# Package: ray[serve] 2.60.0 (Linux).
# Behaviour: Ray Serve, begun on a port at which another Ray Serve of this machine listens, starts without a word, says
#   that it is ready, and both answer: each new connection goes to one of the two, by chance. Its proxies set
#   SO_REUSEPORT, so the system does not refuse the second.
# A good guess: "address already in use", as with uvicorn or gunicorn.
# Whom it hits: who starts a new model while the old server still runs, or two people on one machine: a part of the
#   requests is answered by the other model, with no error anywhere. Bind the port once without SO_REUSEPORT before.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "ray[serve]==2.60.0"
cd "$work"
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 HOME="$work"
cat >model.py <<'PYTHON'
import sys

import ray
from ray import serve

name, port = sys.argv[1], int(sys.argv[2])


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Model:
    def __call__(self, request):
        return name


ray.init(address="local", include_dashboard=False, num_cpus=1, logging_level="ERROR", log_to_driver=False)
serve.start(http_options={"port": port}, logging_config={"log_level": "ERROR"})
serve.run(Model.bind())
print("ready", flush=True)
sys.stdin.read()  # until told to end
serve.shutdown()
ray.shutdown()
PYTHON
cat >ask.py <<'PYTHON'
import collections
import socket
import subprocess
import sys
import urllib.request

import ray

with socket.socket() as sock:
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
models = []
for name in ("old", "new"):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    models.append(subprocess.Popen([sys.executable, "model.py", name, str(port)], text=True, **pipes))
    for line in models[-1].stdout:
        if line == "ready\n":
            print(f"the {name} one is ready")
            break
counts = collections.Counter(
    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30).read().decode() for _ in range(60)
)
print("ray", ray.__version__, sys.platform, "answers to 60 requests:", dict(counts))
for model in models:
    model.communicate(timeout=120)
if set(counts) != {"old", "new"}:
    raise SystemExit("the behaviour is another one now")
PYTHON
"$work/venv/bin/python" -W ignore ask.py
