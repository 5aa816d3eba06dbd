"""Batches on their device, made one step ahead."""

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from cogview.training.task import Batch, Task


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """A part of a step's batch.

    Args:
        tensors: the part, on the device.
        num_items: over how many items its loss is a mean.
        unit: the plural of its items.
        weight: its share of the items of the whole batch; the weights of a step sum to 1.
        work: what else it is counted in.
    """

    tensors: Batch
    num_items: float | int
    unit: str
    weight: float
    work: Mapping[str, float]


def prefetched_batches(
    task: Task, steps: range, num_micro_batches: int, device: torch.device
) -> Generator[list[MicroBatch], None, None]:
    """Yield the micro-batches of each step, while a thread makes those of the next.

    Args:
        task: makes the batches.
        steps: which.
        num_micro_batches: equal parts to cut each batch into.
        device: where they are copied, from pinned memory and without waiting if it is a GPU.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as executor:

        def host_batches(step: int) -> list[MicroBatch]:
            return _cut(task, task.batch(step), num_micro_batches, pin=device.type == "cuda")

        following = executor.submit(host_batches, steps[0]) if steps else None
        for step in steps:
            assert following is not None
            current = following.result()
            following = executor.submit(host_batches, step + 1) if step + 1 in steps else None
            yield [replace(part, tensors=_to_device(part.tensors, device)) for part in current]


def _cut(task: Task, batch: Batch, num_parts: int, pin: bool) -> list[MicroBatch]:
    num_samples = {name: tensor.shape[0] for name, tensor in batch.items()}
    sizes = set(num_samples.values())
    if len(sizes) != 1 or next(iter(sizes)) % num_parts:
        raise ValueError(f"A batch must have one size, a multiple of {num_parts}, got {num_samples}.")
    if task.channels_last:  # here rather than on the device, so that the copy is one plain piece of memory
        batch = {
            name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            for name, tensor in batch.items()
        }
    if pin:
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    chunks = {name: tensor.chunk(num_parts) for name, tensor in batch.items()}
    parts = [{name: tensors[i] for name, tensors in chunks.items()} for i in range(num_parts)]
    counts = [task.num_items(part) for part in parts]
    total = sum(num_items for num_items, _ in counts)
    return [
        MicroBatch(
            tensors=part, num_items=num_items, unit=unit, weight=num_items / total, work=task.work(part)
        )
        for part, (num_items, unit) in zip(parts, counts, strict=True)
    ]


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
