"""Which engine works on which job: the one with the least to do, and another one if that dies."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from cogview.generation.fair_queue import Client
from cogview.serving.engine_link import Link, LinkListener
from cogview.serving.messages import Begin, Broken, Cancel, CannotBegin, JobEvent, Told

if TYPE_CHECKING:
    from cogview.serving.jobs import Job

MAX_DEATHS = 3
"""So many engines may die while they have a job; then it is to blame."""


class Engines:
    """Shares jobs out to engines.

    Args:
        new_links: make the links to the engines, which tell a listener what becomes of them.
        on_told: is told what the engine that has a job tells of it.
        on_given: is told that a job was given to an engine.
        on_ready: is told when all engines are warm, at first and after one was begun anew.
        on_hopeless: is told that an engine cannot begin, and why.
        log: takes what is worth a line.

    Attributes:
        links: to the engines.
    """

    def __init__(
        self,
        new_links: Sequence[Callable[[LinkListener], Link]],
        *,
        on_told: "Callable[[Job, JobEvent], None]",
        on_given: Callable[[], None],
        on_ready: Callable[[], None],
        on_hopeless: Callable[[CannotBegin], None],
        log: Callable[[str], None],
    ) -> None:
        self._on_told, self._on_given, self._on_ready = on_told, on_given, on_ready
        self._on_hopeless, self._log = on_hopeless, log
        self._jobs: dict[int, Job] = {}
        self._link_of: dict[int, Link] = {}
        self._sent: set[int] = set()  # jobs that their engine knows of
        self.links = [self._linked(new) for new in new_links]

    def _linked(self, new_link: Callable[[LinkListener], Link]) -> Link:
        def take(told: Told) -> None:
            if self._link_of.get(told.number) is link:  # else another engine has it by now
                self._on_told(self._jobs[told.number], told.event)

        listener = LinkListener(
            on_told=take,
            on_ready=lambda: self._welcome(link),
            on_lost=lambda: self._lose(link),
            on_hopeless=self._on_hopeless,
            log=self._log,
        )
        link = new_link(listener)
        return link

    @property
    def is_ready(self) -> bool:
        """Return whether jobs are worked on: by one engine at least."""
        return any(link.is_ready for link in self.links)

    def jobs_of(self, link: Link) -> "list[Job]":
        """Return what an engine has, in about the order in which it begins."""
        return fair_order([self._jobs[number] for number, each in self._link_of.items() if each is link])

    def load(self, link: Link) -> int:
        """Return how many requests an engine has."""
        return sum(self._jobs[number].cost for number, each in self._link_of.items() if each is link)

    def idlest(self) -> Link:
        """Return the engine with the least to do, of those that are ready if any is."""
        return min([each for each in self.links if each.is_ready] or self.links, key=self.load)

    def add(self, job: "Job") -> None:
        """Give a job to an engine."""
        self._jobs[job.number] = job
        self._give(job, self.idlest())

    def stop(self, job: "Job") -> None:
        """Tell the engine that has a job that nobody waits for it."""
        link = self._link_of.get(job.number)
        if link is not None:
            link.send(Cancel(number=job.number))

    def remove(self, job: "Job") -> None:
        """Forget a job that is over; its engine may take over what waits for another."""
        link = self._link_of.pop(job.number)
        del self._jobs[job.number]
        self._sent.discard(job.number)
        if link.facts is not None and self.load(link) < link.facts.max_batch:
            self._relieve(link)

    def _give(self, job: "Job", link: Link) -> None:
        self._link_of[job.number] = link
        self._sent.discard(job.number)
        if link.is_ready:
            self._sent.add(job.number)
            link.send(Begin(number=job.number, client=job.client, job=job.work))
            self._on_given()

    def _welcome(self, link: Link) -> None:
        """Give an engine that is ready what waits for it, and its share of what waits for others."""
        for job in self.jobs_of(link):
            if job.number not in self._sent:
                self._give(job, link)
        self._relieve(link)
        if all(each.is_ready for each in self.links):
            self._on_ready()

    def _lose(self, link: Link) -> None:
        """Let other engines have what a dead one had; without any, it waits for the one that is begun anew."""
        for job in self.jobs_of(link):
            if job.number in self._sent:
                self._sent.discard(job.number)
                job.num_deaths += 1
            if job.num_deaths >= MAX_DEATHS:
                self._on_told(
                    job, Broken(message=f"the engine died {job.num_deaths} times while it was drawn")
                )
            elif self.is_ready:
                self._give(job, self.idlest())

    def _relieve(self, link: Link) -> None:
        """Let an engine take over what waits for a place in another, the last first, or for another to be ready."""
        for other in self.links:
            if other is link or not link.is_ready:
                continue
            for job in reversed(self._waiting(other)):
                if other.is_ready:
                    if self.load(link) + job.cost > self.load(other) - job.cost:
                        break
                    other.send(Cancel(number=job.number))
                self._give(job, link)

    def _waiting(self, link: Link) -> "list[Job]":
        """Return the jobs that an engine has no places for yet."""
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
    """Return jobs in about the order in which they begin: the first of each client, then the second of each."""
    nums: Counter[Client] = Counter()
    keys = {}
    for job in jobs:
        keys[job.number] = nums[job.client], job.number
        nums[job.client] += 1
    return sorted(jobs, key=lambda job: keys[job.number])
