"""Assignment of jobs to engines: to the least loaded one, and to another one if it dies."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from cogview.generation.fair_queue import Client
from cogview.serving.engine_link import Link, LinkListener
from cogview.serving.messages import CancelJob, Failed, JobEvent, JobReport, StartFailed, StartJob

if TYPE_CHECKING:
    from cogview.serving.jobs import Job

MAX_DEATHS = 3
"""After so many deaths of its engines a job fails: it is probably the cause."""


class EnginePool:
    """Distributor of jobs over engines.

    Args:
        new_links: create the links to the engines.
        on_event: called with each job event of the engine that has the job.
        on_assigned: called when a job was sent to an engine.
        on_ready: called when all engines are warm, at first and after a restart.
        on_start_failed: called when an engine cannot start.
        log: writes a line to the log.

    Attributes:
        links: to the engines.
    """

    def __init__(
        self,
        new_links: Sequence[Callable[[LinkListener], Link]],
        *,
        on_event: "Callable[[Job, JobEvent], None]",
        on_assigned: Callable[[], None],
        on_ready: Callable[[], None],
        on_start_failed: Callable[[StartFailed], None],
        log: Callable[[str], None],
    ) -> None:
        self._on_event, self._on_assigned, self._on_ready = on_event, on_assigned, on_ready
        self._on_start_failed, self._log = on_start_failed, log
        self._jobs: dict[int, Job] = {}
        self._link_of: dict[int, Link] = {}
        self._sent: set[int] = set()  # jobs sent to their engine, which may not be ready
        self.links = [self._make_link(new) for new in new_links]

    def _make_link(self, new_link: Callable[[LinkListener], Link]) -> Link:
        def forward(report: JobReport) -> None:
            if self._link_of.get(report.number) is link:  # otherwise it was reassigned
                self._on_event(self._jobs[report.number], report.event)

        listener = LinkListener(
            on_report=forward,
            on_ready=lambda: self._on_engine_ready(link),
            on_lost=lambda: self._on_engine_lost(link),
            on_start_failed=self._on_start_failed,
            log=self._log,
        )
        link = new_link(listener)
        return link

    @property
    def is_ready(self) -> bool:
        """Return whether at least one engine is warm."""
        return any(link.is_ready for link in self.links)

    def jobs_of(self, link: Link) -> "list[Job]":
        """Return an engine's jobs in the approximate order of their start."""
        return fair_order([self._jobs[number] for number, each in self._link_of.items() if each is link])

    def load(self, link: Link) -> int:
        """Return an engine's number of requests."""
        return sum(self._jobs[number].cost for number, each in self._link_of.items() if each is link)

    def idlest(self) -> Link:
        """Return the least loaded engine, preferably a ready one."""
        return min([each for each in self.links if each.is_ready] or self.links, key=self.load)

    def add(self, job: "Job") -> None:
        """Assign a job to an engine."""
        self._jobs[job.number] = job
        self._assign(job, self.idlest())

    def stop(self, job: "Job") -> None:
        """Cancel a job at its engine."""
        link = self._link_of.get(job.number)
        if link is not None:
            link.send(CancelJob(number=job.number))

    def remove(self, job: "Job") -> None:
        """Remove a finished job; its engine may take over jobs from others."""
        link = self._link_of.pop(job.number)
        del self._jobs[job.number]
        self._sent.discard(job.number)
        if link.facts is not None and self.load(link) < link.facts.max_batch:
            self._take_over_jobs(link)

    def _assign(self, job: "Job", link: Link) -> None:
        self._link_of[job.number] = link
        self._sent.discard(job.number)
        if link.is_ready:
            self._sent.add(job.number)
            link.send(StartJob(number=job.number, client=job.client, job=job.work))
            self._on_assigned()

    def _on_engine_ready(self, link: Link) -> None:
        """Send an engine its waiting jobs, and its share of those of others."""
        for job in self.jobs_of(link):
            if job.number not in self._sent:
                self._assign(job, link)
        self._take_over_jobs(link)
        if all(each.is_ready for each in self.links):
            self._on_ready()

    def _on_engine_lost(self, link: Link) -> None:
        """Reassign a dead engine's jobs; without another ready engine they wait for its restart."""
        for job in self.jobs_of(link):
            if job.number in self._sent:
                self._sent.discard(job.number)
                job.num_deaths += 1
            if job.num_deaths >= MAX_DEATHS:
                self._on_event(
                    job, Failed(message=f"the engine died {job.num_deaths} times while it was drawn")
                )
            elif self.is_ready:
                self._assign(job, self.idlest())

    def _take_over_jobs(self, link: Link) -> None:
        """Move jobs to an engine that wait for a slot of another (last first) or for its start."""
        for other in self.links:
            if other is link or not link.is_ready:
                continue
            for job in reversed(self._waiting(other)):
                if other.is_ready:
                    if self.load(link) + job.cost > self.load(other) - job.cost:
                        break
                    other.send(CancelJob(number=job.number))
                self._assign(job, link)

    def _waiting(self, link: Link) -> "list[Job]":
        """Return the jobs for which an engine has no slots yet."""
        jobs = self.jobs_of(link)
        if not link.is_ready or link.facts is None:
            return jobs
        before = accumulate((job.cost for job in jobs), initial=0)
        return [
            job
            for job, num in zip(jobs, before, strict=False)
            if num >= link.facts.max_batch and job.state == "waiting"
        ]


def fair_order(jobs: "list[Job]") -> "list[Job]":
    """Return jobs in the approximate order of their start: each client's first, then each one's second."""
    nums: Counter[Client] = Counter()
    keys = {}
    for job in jobs:
        keys[job.number] = nums[job.client], job.number
        nums[job.client] += 1
    return sorted(jobs, key=lambda job: keys[job.number])
