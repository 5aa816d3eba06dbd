"""What operators watch: figures in Prometheus' form."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cogview.serving.jobs import Job, Jobs, LogEvent
from cogview.serving.messages import Picture, Preview

_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)


class Metrics:
    """Counts what happens, and reads off the jobs and engines how it goes when it is asked.

    Args:
        jobs: that wait or are worked on.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cogview_requests",
            "Answers, by route, method and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "cogview_request_seconds",
            "From a request's arrival to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._jobs = Counter(
            "cogview_jobs",
            "Jobs that are over: done, refused, failed or cancelled.",
            ["state"],
            registry=self._registry,
        )
        self._pictures = Counter("cogview_pictures", "Pictures that are done.", registry=self._registry)
        self._first_preview = Histogram(
            "cogview_first_preview_seconds",
            "From a job's arrival to its first preview.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._picture = Histogram(
            "cogview_picture_seconds",
            "From a job's arrival to each of its pictures.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Engines(jobs))
        jobs.listeners.append(self._told)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            route: the pattern of its address, of which there are few.
            method: of HTTP, or any word that a client made up.
            status: of HTTP; 499 if the client left.
            seconds: that it took.
        """
        known = method if method in _METHODS else "other"  # each label is kept for ever
        self._requests.labels(route, known, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        return generate_latest(self._registry)

    def _told(self, job: Job, event: LogEvent) -> None:
        seconds = time.monotonic() - job.begun_at
        if isinstance(event, Preview) and job.num_previews == 1:
            self._first_preview.observe(seconds)
        elif isinstance(event, Picture):
            self._pictures.inc()
            self._picture.observe(seconds)
        elif job.is_over:
            self._jobs.labels(job.state).inc()


class _Engines(Collector):
    """What is read off the jobs and engines when it is asked for."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        jobs = self._jobs
        yield GaugeMetricFamily("cogview_queue_jobs", "Jobs that wait or are worked on.", jobs.num_jobs)
        yield GaugeMetricFamily(
            "cogview_queue_requests", "Candidates that wait or are worked on.", jobs.num_waiting
        )
        gauges = {
            "ready": "Whether the engine is warm.",
            "rows": "Requests that passes work on.",
            "seconds_per_code": "Lately, all pictures taken together.",
            "silent_seconds": "Since the engine was last heard.",
        }
        counters = {
            "begun": "How often the engine's process was begun.",
            "passes": "Passes of the transformer, since the process was begun.",
            "codes": "Codes drawn, since the process was begun; by passes, codes a pass.",
        }
        families: dict[str, Metric] = {}
        for name, text in gauges.items():
            families[name] = GaugeMetricFamily(f"cogview_engine_{name}", text, labels=["engine"])
        for name, text in counters.items():
            families[name] = CounterMetricFamily(f"cogview_engine_{name}", text, labels=["engine"])
        for number, link in enumerate(jobs.links):
            alive = link.alive
            values = {
                "ready": float(link.is_ready),
                "begun": float(link.num_begun),
                "silent_seconds": link.silent_seconds,
            }
            if alive is not None:
                values |= {
                    "rows": float(alive.num_running),
                    "seconds_per_code": alive.seconds_per_code,
                    "passes": float(alive.num_passes),
                    "codes": float(alive.num_codes),
                }
            for name, value in values.items():
                families[name].add_metric([str(number)], value)  # type: ignore[attr-defined]
        yield from families.values()
