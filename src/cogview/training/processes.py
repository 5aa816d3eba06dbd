"""The processes of a distributed run: their rows of a batch, and their communication."""

import logging
import math
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cogview.data.ranks import Ranks
from cogview.errors import CogViewError, UsageError
from cogview.training.config import TrainingConfig
from cogview.training.precision import resolve_device

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train one model; by default the only one.

    All processes must call every method alike, so no call may depend on values that others may not have.

    Args:
        device: of this process.
        ranks: number of this process, and of all.
        mesh: "replica" x "shard" x "tensor"; None for one process. Processes along "tensor" see the same rows; those
            along "shard" hold the parts of one copy of the weights.
        agreement: CPU process group, so that no GPU is waited for.
    """

    device: torch.device
    ranks: Ranks = field(default_factory=Ranks)
    mesh: DeviceMesh | None = None
    agreement: distributed.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.ranks.rank == 0

    @property
    def tensor_parallel(self) -> int:
        """Number of processes that share each block's matrices."""
        return 1 if self.mesh is None else self.mesh["tensor"].size()

    @property
    def num_row_parts(self) -> int:
        """Number of parts that the rows of a batch are divided into."""
        return self.ranks.num_ranks // self.tensor_parallel

    @property
    def row_part(self) -> int:
        """Index of this process's part of the rows."""
        return self.ranks.rank // self.tensor_parallel

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self.mesh is None:
            return flag
        flags = torch.tensor([float(flag)])
        distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=self.agreement)
        return bool(flags.item())

    def largest(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the largest values, by name, over the processes with the first rows, each with its heads.

        The first rows are the same for any number of processes, so the values are too. NaN counts as the largest.
        """
        if self.mesh is None:
            return dict(values)
        largest: dict[str, float] = {}
        for each in self.gather(dict(values))[: self.tensor_parallel]:
            for name, value in each.items():
                known = largest.get(name, -math.inf)
                largest[name] = value if math.isnan(value) or value > known else known
        return largest

    def sums(self, values: Mapping[Name, Sequence[float]]) -> dict[Name, list[float]]:
        """Return sums over the parts of the rows by name; processes with the same rows count once.

        Names may differ between processes; missing values are zeros.
        """
        if self.mesh is None:
            return {name: list(numbers) for name, numbers in values.items()}
        sums: dict[Name, list[float]] = {}
        for each in self.gather(dict(values))[:: self.tensor_parallel]:
            for name, numbers in each.items():
                known = sums.get(name, [0.0] * len(numbers))
                sums[name] = [one + other for one, other in zip(known, numbers, strict=True)]
        return sums

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        if self.mesh is None:
            return [value]
        values: list[Any] = [None] * self.ranks.num_ranks
        distributed.all_gather_object(values, value, group=self.agreement)
        return values

    def agree(self, error: Exception | None) -> None:
        """Raise one process's error in all of them; go on if there is none.

        Args:
            error: of this process: one of ours or an OSError.
        """
        for each in self.gather(_as_message(error)):
            if each is not None:
                raise each from error

    def first_does(self, action: Callable[[], object]) -> None:
        """Run an action in the first process while the others wait; its error is raised in all."""
        if self.mesh is None:
            action()
            return
        failure: Exception | None = None
        if self.is_first:
            try:
                action()
            except Exception as error:
                failure = error
        self.agree(failure)

    @contextmanager
    def first_alone(self, context: AbstractContextManager[Any]) -> Iterator[None]:
        """Enter a context in the first process only; the others wait until it is entered.

        Raises:
            SystemExit: in the others, if the first failed to enter; it reports why.
        """
        entered: AbstractContextManager[Any] = nullcontext()
        failure: BaseException | None = None
        if self.is_first:
            try:
                context.__enter__()
                entered = _Leaving(context)
            except Exception as error:
                failure = error
        has_failed = self.any(failure is not None)
        if failure is not None:
            raise failure
        if has_failed:
            raise SystemExit(2)
        with entered:
            yield


def _as_message(error: Exception | None) -> Exception | None:
    """Return an error that can be pickled: exceptions with arguments of their own may fail on arrival."""
    plain = type(error) in (CogViewError, UsageError) or isinstance(error, OSError | SafetensorError)
    if error is None or plain:
        return error
    return (
        CogViewError(str(error))
        if isinstance(error, CogViewError)
        else RuntimeError(f"{type(error).__name__}: {error}")
    )


class _Leaving(AbstractContextManager[Any]):
    """An entered context, to be exited."""

    def __init__(self, context: AbstractContextManager[Any]) -> None:
        self._context = context

    def __exit__(self, *arguments: Any) -> bool | None:
        return self._context.__exit__(*arguments)


@contextmanager
def joined_processes(config: TrainingConfig) -> Iterator[Processes]:
    """Join the processes that `torchrun` started; without it, be the only one.

    Args:
        config: the device, and how processes share the work.

    Raises:
        UsageError: they cannot share it so, or the rendezvous address is missing.
    """
    ranks, device = Ranks.from_environment(os.environ), resolve_device(config.device)
    check_shares(config, ranks.num_ranks)
    if ranks.num_ranks == 1:
        yield Processes(device=device)
        return
    if device.type == "cuda":
        if ranks.local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"Process {ranks.local_rank} of this host has no GPU, there are {torch.cuda.device_count()}: start as "
                "many processes a host as it has GPUs, or take --training.device cpu."
            )
        device = torch.device("cuda", ranks.local_rank)
        torch.cuda.set_device(device)
    # Its warning, that gathering over two dimensions takes two rounds, is true but such gathers are rare.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    starts = not distributed.is_initialized()
    if starts:
        if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
            raise UsageError(
                f"WORLD_SIZE is {ranks.num_ranks} and there is no {' and no '.join(missing)}, so the processes cannot "
                "meet: start them by torchrun, or unset RANK and WORLD_SIZE to train with one."
            )
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", device_id=device if device.type == "cuda" else None
        )
    try:
        num_row_parts = ranks.num_ranks // config.tensor_parallel
        num_shards = config.shard_over or num_row_parts
        shape = (num_row_parts // num_shards, num_shards, config.tensor_parallel)
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=("replica", "shard", "tensor"))
        yield Processes(
            device=device, ranks=ranks, mesh=mesh, agreement=distributed.new_group(backend="gloo")
        )
    finally:
        if starts:
            distributed.destroy_process_group()


def check_shares(config: TrainingConfig, num_processes: int) -> None:
    """Refuse a number of processes that cannot share a run.

    Raises:
        UsageError: two numbers do not divide; or compile is combined with tensor_parallel, which fails in PyTorch
            (2.13).
    """
    if config.compile and config.tensor_parallel > 1:
        raise UsageError("compile does not go together with tensor_parallel: leave one of them out.")
    if num_processes % config.tensor_parallel:
        raise UsageError(
            f"tensor_parallel {config.tensor_parallel} does not divide the {num_processes} processes: start a multiple "
            f"of it (torchrun --nproc-per-node {config.tensor_parallel} ...), or lower it."
        )
    num_row_parts = num_processes // config.tensor_parallel
    if config.shard_over and num_row_parts % config.shard_over:
        raise UsageError(
            f"shard_over {config.shard_over} does not divide the {num_row_parts} processes that have rows of their "
            "own: take a divisor, or 0 for all of them."
        )
    if config.batch_size % (num_row_parts * config.num_micro_batches):
        raise UsageError(
            f"batch_size {config.batch_size} must be a multiple of num_micro_batches {config.num_micro_batches} times "
            f"{num_row_parts}, the processes that have rows of their own: change one of them."
        )
