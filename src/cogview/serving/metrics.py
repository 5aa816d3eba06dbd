"""Prometheus metrics of the server."""

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
    """Counters of answers, jobs and pictures, and gauges of queue and engines."""

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
        self._registry.register(_StateCollector(jobs))
        jobs.listeners.append(self._count_event)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            route: pattern of the path.
            method: HTTP method, possibly invalid.
            status: HTTP status; 499 if the client left.
            seconds: duration.
        """
        label = method if method in _METHODS else "other"  # labels are never freed
        self._requests.labels(route, label, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _count_event(self, job: Job, event: LogEvent) -> None:
        seconds = time.monotonic() - job.started_at
        if isinstance(event, Preview) and job.num_previews == 1:
            self._first_preview.observe(seconds)
        elif isinstance(event, Picture):
            self._pictures.inc()
            self._picture.observe(seconds)
        elif job.is_over:
            self._jobs.labels(job.state).inc()


class _StateCollector(Collector):
    """Collector of the state of jobs and engines at each scrape."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        jobs = self._jobs
        yield GaugeMetricFamily("cogview_queue_jobs", "Unfinished jobs.", jobs.num_jobs)
        yield GaugeMetricFamily(
            "cogview_queue_requests", "Engine requests of unfinished jobs.", jobs.num_waiting
        )
        gauges = {
            "ready": "Whether the engine is warm.",
            "rows": "Requests in the batch.",
            "seconds_per_code": "Recent average over the whole batch.",
            "silent_seconds": "Since the engine's last message.",
        }
        counters = {
            "begun": "Starts of the engine's process.",
            "passes": "Passes of the transformer since the process started.",
            "codes": "Codes drawn since the process started.",
        }
        families: dict[str, Metric] = {}
        for name, text in gauges.items():
            families[name] = GaugeMetricFamily(f"cogview_engine_{name}", text, labels=["engine"])
        for name, text in counters.items():
            families[name] = CounterMetricFamily(f"cogview_engine_{name}", text, labels=["engine"])
        for number, link in enumerate(jobs.links):
            heartbeat = link.heartbeat
            values = {
                "ready": float(link.is_ready),
                "begun": float(link.num_starts),
                "silent_seconds": link.silent_seconds,
            }
            if heartbeat is not None:
                values |= {
                    "rows": float(heartbeat.num_running),
                    "seconds_per_code": heartbeat.seconds_per_code,
                    "passes": float(heartbeat.num_passes),
                    "codes": float(heartbeat.num_codes),
                }
            for name, value in values.items():
                families[name].add_metric([str(number)], value)  # type: ignore[attr-defined]
        yield from families.values()
