#!/usr/bin/env bash
# Package: ray[serve] 2.60.0.
# Behaviour: a stream between two deployments (`handle.options(stream=True)`) is cancelled in the replica that yields
#   when its caller cancels it, but not when its caller's process dies: the generator goes on yielding to nobody, for as
#   long as it likes, and counts as an ongoing request. With `max_ongoing_requests` of such streams the replica is full
#   for good, though nobody calls it.
# A good guess: a caller that dies is a client that left; Ray owns the call, and ends what its dead owner asked for.
# Whom it hits: who streams pictures or tokens from engines through an ingress: an ingress that was killed leaves them
#   drawing for nobody, and subscriptions without an end pile up. Let a stream end by itself now and then, and be
#   called again.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "ray[serve]==2.60.0"
cd "$work"
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 HOME="$work"
cat >streams.py <<'PYTHON'
import asyncio
import os
import signal
import sys
import time

import ray
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=3)
class Engine:
    def __init__(self):
        self.num_ticks, self.ended = 0, []

    async def ticks(self):
        try:
            while True:
                self.num_ticks += 1
                yield self.num_ticks
                await asyncio.sleep(0.1)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise

    async def state(self):
        return self.num_ticks, self.ended


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Caller:
    def __init__(self, engine):
        self.engine = engine

    async def begin(self):
        self.stream = self.engine.options(stream=True).ticks.remote()
        await anext(self.stream)
        return os.getpid()

    async def cancel(self):
        self.stream.cancel()


def ticks_in(engine, seconds):
    before, _ = engine.state.remote().result()
    time.sleep(seconds)
    after, ended = engine.state.remote().result()
    return after - before, ended


ray.init(address="local", include_dashboard=False, num_cpus=2, logging_level="ERROR", log_to_driver=False)
serve.start(http_options={"location": "NoServer"}, logging_config={"log_level": "ERROR"})
caller = serve.run(Caller.bind(Engine.bind()), name="app", route_prefix=None)
engine = serve.get_deployment_handle("Engine", "app")
print("ray", ray.__version__, "Python", sys.version.split()[0])
caller.begin.remote().result()
caller.cancel.remote().result()
time.sleep(2)
cancelled, ended = ticks_in(engine, 3)
print(f"cancelled by its caller: {cancelled} more ticks in 3 s, ended by {ended}")
pid = caller.begin.remote().result()
os.kill(pid, signal.SIGKILL)
time.sleep(20)
left, ended = ticks_in(engine, 3)
print(f"20 s after its caller was killed: {left} more ticks in 3 s, ended by {ended}")
serve.shutdown()
ray.shutdown()
if not (cancelled == 0 and left > 10 and len(ended) == 1):
    raise SystemExit("the behaviour is another one now")
PYTHON
"$work/venv/bin/python" -W ignore streams.py
