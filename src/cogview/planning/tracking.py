"""Counting the bytes of a computation whose tensors hold nothing, by what they are for.

Under PyTorch's `FakeTensorMode` tensors have shapes and lifetimes, but no memory. PyTorch's own tracker of such
tensors, `torch.distributed._tools.MemTracker`, walks over all of them at each operation: it takes four minutes for a
step of 48 layers, where this one, told of each storage's birth and death, takes seconds.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MemoryKind = Literal["weights", "gradients", "optimizer", "weight_copies", "activations", "transient"]
"""What memory is for: `weight_copies` are weights that autocast rounded, `activations` all else that a forward pass
leaves for the backward pass, `transient` what comes and goes within a step."""

MEMORY_KINDS: tuple[MemoryKind, ...] = get_args(MemoryKind)

_HEAP_BYTES = 2**25
"""glibc gives allocations of this size and more back at once, and keeps smaller ones for others of their size."""


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, counts the bytes of the tensors that operations make, and keeps the peak.

    Where code asks for the truth of a value, which no such tensor has, the answer is yes.

    Args:
        shares: by what to multiply the bytes of a kind, 1 by default: what one of many devices holds of it.
    """

    def __init__(self, shares: Mapping[MemoryKind, float] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shares = dict.fromkeys(MEMORY_KINDS, 1.0) | dict(shares or {})
        # By the identity of a storage: a reference that says when it dies, its bytes, its kind.
        self._held: dict[int, tuple[weakref.ref[Any], int, MemoryKind]] = {}
        self._bytes: Counter[MemoryKind] = Counter()
        self._total = 0.0
        self._heap = self._largest_heap = self._heap_at_peak = 0
        self._birth = 0
        self._births: dict[int, int] | None = None  # of a forward pass: identity of a storage -> its number
        self._kept: set[int] = set()  # numbers of what the last forward pass left for the backward pass
        self.peak: dict[MemoryKind, float] = {}
        """Bytes of each kind, shared, at the moment when their sum was largest."""
        self._peak_total = -1.0

    def tag(self, kind: MemoryKind, tensors: Iterable[Tensor]) -> None:
        """Say what tensors are for, whether they were seen before or not."""
        for tensor in tensors:
            self._count(tensor.untyped_storage(), kind)
        self._note_peak()

    def retag(self, kind: MemoryKind, as_kind: MemoryKind) -> None:
        """Count all that is of a kind now as of another."""
        for key, (reference, num_bytes, held_kind) in list(self._held.items()):
            if held_kind == kind:
                self._held[key] = (reference, num_bytes, as_kind)
                self._bytes[kind] -= num_bytes
                self._bytes[as_kind] += num_bytes
                self._total += num_bytes * (self._shares[as_kind] - self._shares[kind])

    def forget_peak(self) -> None:
        """Look for the peak from here on."""
        self._peak_total, self._largest_heap = -1.0, 0
        self._note_peak()

    @property
    def heap_bytes(self) -> tuple[int, int]:
        """The most bytes of tensors that are small for an allocator at any time, and those at the peak."""
        return self._largest_heap, self._heap_at_peak

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Tell activations apart: what lives on at the end of the block.

        Which ones these are is only known afterwards, so a pass is taken to leave what the pass before it left: let
        two equal ones run.
        """
        self._birth, self._births = 0, {}
        try:
            yield
            self._kept = {birth for key, birth in self._births.items() if key in self._held}
        finally:
            self._births = None

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do the operation, and count what it made."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return True
        result = func(*args, **(kwargs or {}))
        is_copy = func is torch.ops.aten._to_copy.default and self._kind_of(args[0]) == "weights"
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in self._held:
                    self._count(storage, self._kind_at_birth(storage, is_copy))
        self._note_peak()
        return result

    def _kind_of(self, tensor: Tensor) -> MemoryKind | None:
        held = self._held.get(id(tensor.untyped_storage()))
        return held and held[2]

    def _kind_at_birth(self, storage: torch.UntypedStorage, is_copy: bool) -> MemoryKind:
        if self._births is None:
            return "transient"
        self._birth += 1
        self._births[id(storage)] = self._birth
        if self._birth not in self._kept:
            return "transient"
        return "weight_copies" if is_copy else "activations"

    def _count(self, storage: torch.UntypedStorage, kind: MemoryKind) -> None:
        """Count a storage as of a kind, until it dies."""
        key = id(storage)
        if key in self._held:
            self._forget(key)
        reference = weakref.ref(storage, self._forgetter(key))
        self._held[key] = (reference, storage.nbytes(), kind)
        self._add(kind, storage.nbytes())

    def _forgetter(self, key: int) -> Callable[[object], None]:
        return lambda _: self._forget(key)

    def _forget(self, key: int) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._add(held[2], -held[1])

    def _add(self, kind: MemoryKind, num_bytes: int) -> None:
        self._bytes[kind] += num_bytes
        self._total += num_bytes * self._shares[kind]
        if abs(num_bytes) < _HEAP_BYTES:
            self._heap += num_bytes
            self._largest_heap = max(self._largest_heap, self._heap)

    def _note_peak(self) -> None:
        if self._total > self._peak_total:
            self._peak_total, self._heap_at_peak = self._total, self._heap
            self.peak = {kind: self._bytes[kind] * self._shares[kind] for kind in MEMORY_KINDS}
