"""Memory and peak operations of devices, from data sheets; `cogview.training.flops` has the table of peaks."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from cogview.errors import UsageError
from cogview.training.flops import PEAK_TFLOPS, peak_flops
from cogview.training.precision import computes_bfloat16

CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Folder of Linux's process group limits; a container sees its own group."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A kind of device.

    Args:
        name: its usual name.
        memory_bytes: of one device; of GPUs the data sheet's gigabytes of 10^9 bytes. The few per cent beyond are left
            to the driver's context and the allocator's rounding.
        half_tflops: peak in 10^12 dense bfloat16 or float16 operations per second, with float32 sums; None if unknown.
        float32_tflops: the same in float32 without TF32, which is disabled here.
        has_bfloat16: whether it has bfloat16 instructions, which the precision "auto" depends on.
        has_large_blocks: whether a block has the 200 KiB of shared memory that Triton's three-region attention takes.
    """

    name: str
    memory_bytes: float
    half_tflops: float | None
    float32_tflops: float | None
    has_bfloat16: bool = True
    has_large_blocks: bool = False

    @property
    def is_cpu(self) -> bool:
        """Whether it is this machine's CPU."""
        return self.name == "cpu"


def _gpu(
    name: str,
    chip: str,
    gigabytes: float,
    float32_tflops: float,
    *,
    has_bfloat16: bool = True,
    has_large_blocks: bool = False,
) -> Device:
    return Device(
        name=name,
        memory_bytes=gigabytes * 1e9,
        half_tflops=PEAK_TFLOPS[chip],
        float32_tflops=float32_tflops,
        has_bfloat16=has_bfloat16,
        has_large_blocks=has_large_blocks,
    )


GPUS: Mapping[str, Device] = MappingProxyType(
    {
        gpu.name: gpu
        for gpu in (
            _gpu("b200", "B200", 180.0, 75.0, has_large_blocks=True),
            _gpu("h200", "H200", 141.0, 67.0, has_large_blocks=True),
            _gpu("h100", "H100", 80.0, 67.0, has_large_blocks=True),
            _gpu("h100-pcie", "H100 PCIe", 80.0, 51.0, has_large_blocks=True),
            _gpu("a100-80", "A100", 80.0, 19.5),
            _gpu("a100-40", "A100", 40.0, 19.5),
            _gpu("v100", "V100", 32.0, 15.7, has_bfloat16=False),
            _gpu("v100-16", "V100", 16.0, 15.7, has_bfloat16=False),
            _gpu("l40s", "L40S", 48.0, 91.6),
            _gpu("l4", "L4", 24.0, 30.3),
            _gpu("a10", "A10", 24.0, 31.2),
            _gpu("t4", "T4", 16.0, 8.1, has_bfloat16=False),
            _gpu("rtx4090", "RTX 4090", 24.0, 82.6),
            _gpu("rtx3090", "RTX 3090", 24.0, 35.6),
        )
    }
)
"""GPUs known by name; others are described by memory and operations."""


def find_device(name: str) -> Device:
    """Return a device by name; "cpu" is this machine's.

    Raises:
        UsageError: there is no such name.
    """
    if name == "cpu":
        return Device(
            name="cpu",
            memory_bytes=_memory_bytes(),
            half_tflops=None,
            float32_tflops=None,
            has_bfloat16=computes_bfloat16(torch.device("cpu")),
        )
    if name not in GPUS:
        raise UsageError(
            f"there is no device '{name}': the devices are cpu, {', '.join(GPUS)}; for another, take the nearest and "
            "give --device-memory-gb and --peak-tflops"
        )
    return GPUS[name]


def own_device(device: torch.device) -> Device:
    """Return the specification of this machine's device; a GPU's float32 peak is unknown."""
    if device.type == "cpu":
        return find_device("cpu")
    flops = peak_flops("auto", device, "bfloat16")
    return Device(
        name=torch.cuda.get_device_name(device),
        memory_bytes=float(torch.cuda.get_device_properties(device).total_memory),
        half_tflops=flops and flops / 1e12,
        float32_tflops=None,
        has_bfloat16=computes_bfloat16(device),
    )


def timed_read_bandwidth(num_bytes: int = 400_000_000, rounds: int = 3) -> float:
    """Return the bytes per second at which this machine's CPU sums a large tensor, the best of several rounds."""
    buffer = torch.ones(num_bytes // 4)
    seconds = []
    for _ in range(rounds + 1):  # the first warms up
        start = time.perf_counter()
        float(buffer.sum())
        seconds.append(time.perf_counter() - start)
    return num_bytes / min(seconds[1:])


def _memory_bytes() -> float:
    """Return the machine's memory, or its container's limit."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of version 2 and of version 1
        try:
            memory = min(memory, float((CONTROL_GROUPS / name).read_text()))
        except (OSError, ValueError):  # "max" is no limit
            continue
    return memory
