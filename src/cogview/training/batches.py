"""Batches on their device, prefetched one step ahead."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from cogview.errors import UsageError
from cogview.training.task import Batch, Task


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Part of a step's batch.

    Args:
        tensors: on the device.
        num_own_items: items of this process's rows.
        num_items: items of the rows of all processes.
        unit: plural name of the items.
        weight: share of this process's rows in the batch's items; all weights of a step sum to 1.
        work: other counts over the rows of all processes.
    """

    tensors: Batch
    num_own_items: float | int
    num_items: float | int
    unit: str
    weight: float
    work: Mapping[str, float]


def prefetched_batches(
    task: Task,
    steps: range,
    num_micro_batches: int,
    device: torch.device,
    row_part: int = 0,
    num_row_parts: int = 1,
) -> Generator[list[MicroBatch], None, None]:
    """Yield the micro-batches of each step, while a thread makes those of the next.

    Args:
        task: makes the batches.
        steps: the steps.
        num_micro_batches: equal parts to cut each batch into.
        device: target of the copies, which are asynchronous from pinned memory on a GPU.
        row_part: this process's part of each micro-batch; each process makes the whole batch.
        num_row_parts: number of parts.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as executor:

        def host_batches(step: int) -> list[MicroBatch]:
            parts = _cut(task, task.batch(step), num_micro_batches * num_row_parts)
            groups = [parts[first : first + num_row_parts] for first in range(0, len(parts), num_row_parts)]
            own = [_with_all_counted(group[row_part], group) for group in groups]
            if device.type != "cuda":
                return own
            return [replace(part, tensors=_pinned(part.tensors)) for part in own]

        following = executor.submit(host_batches, steps[0]) if steps else None
        for step in steps:
            assert following is not None
            current = following.result()
            following = executor.submit(host_batches, step + 1) if step + 1 in steps else None
            yield [replace(part, tensors=_to_device(part.tensors, device)) for part in current]


def _cut(task: Task, batch: Batch, num_parts: int) -> list[MicroBatch]:
    num_samples = {name: tensor.shape[0] for name, tensor in batch.items()}
    sizes = set(num_samples.values())
    if len(sizes) != 1 or next(iter(sizes)) % num_parts:
        raise ValueError(f"A batch must have one size, a multiple of {num_parts}, got {num_samples}.")
    if task.channels_last:  # on the host, so that the copy is contiguous
        batch = {
            name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            for name, tensor in batch.items()
        }
    chunks = {name: tensor.chunk(num_parts) for name, tensor in batch.items()}
    parts = [{name: tensors[i] for name, tensors in chunks.items()} for i in range(num_parts)]
    counts = [task.num_items(part) for part in parts]
    total = sum(num_items for num_items, _ in counts)
    if not total:
        raise UsageError(
            "A batch has no target with a weight, so nothing to learn: give token_loss.text_weight more than 0."
        )
    return [
        MicroBatch(
            tensors=part,
            num_own_items=num_items,
            num_items=num_items,
            unit=unit,
            weight=num_items / total,
            work=task.work(part),
        )
        for part, (num_items, unit) in zip(parts, counts, strict=True)
    ]


def _with_all_counted(own: MicroBatch, parts: Sequence[MicroBatch]) -> MicroBatch:
    """Return a part with the items and work of all parts."""
    work = {name: sum(part.work[name] for part in parts) for name in own.work}
    return replace(own, num_items=sum(part.num_items for part in parts), work=work)


def _pinned(batch: Batch) -> Batch:
    return {name: tensor.pin_memory() for name, tensor in batch.items()}


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
