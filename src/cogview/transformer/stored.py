"""Transformer in a file, read only as far as needed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor, nn

from cogview.tensors import TensorFile, as_weights, build_to_fit, read_tensors
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import LEAST_TENSORS_OF_A_LAYER, TransformerConfig
from cogview.transformer.model import Transformer
from cogview.transformer.quantized import SCALE_SUFFIX, QuantizedRows, is_quantized
from cogview.uninitialised import uninitialised

Module = TypeVar("Module", bound=nn.Module)


class StoredWeights(Mapping[str, Tensor]):
    """Tensors of a transformer in a file, by name and as stored, each read on access.

    Args:
        path: a safetensors file.

    Raises:
        CogViewError: the file cannot be read, or lacks the scales of a quantized matrix.
    """

    def __init__(self, path: Path) -> None:
        self._file = TensorFile(path)
        shapes = self._file.shapes
        self._quantized = {name for name, dtype in self._file.dtypes.items() if dtype == torch.int8}
        self.shapes = {name: shape for name, shape in shapes.items() if not self._is_scale(name)}
        for name in self._quantized:
            shape, scales = shapes[name], shapes.get(name + SCALE_SUFFIX)
            if not is_quantized(name) or len(shape) != 2 or scales is None or list(scales) != [shape[0]]:
                read_tensors(path)  # raises: int8 without scales

    @property
    def is_quantized(self) -> bool:
        """Whether matrices are stored as int8."""
        return bool(self._quantized)

    def dtype_of(self, name: str) -> torch.dtype:
        """Return a dtype that holds a tensor exactly; fp32 for a quantized one."""
        stored = self._file.dtypes[name]
        return torch.float32 if stored == torch.int8 else torch.float16 if stored.itemsize == 1 else stored

    def quantized(self, name: str) -> QuantizedRows | None:
        """Return a matrix stored as int8; None if it is not."""
        if name not in self._quantized:
            return None
        return QuantizedRows(self._file.read(name), self._file.read(name + SCALE_SUFFIX).float())

    def _is_scale(self, name: str) -> bool:
        return name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) in self._quantized

    def __getitem__(self, name: str) -> Tensor:
        rows = self.quantized(name)
        return as_weights(name, self._file.read(name)) if rows is None else rows.floats()

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class StoredTransformer:
    """Transformer whose weights lie in a safetensors file.

    Decoding reads it block by block into its prepared form. Accessing `module` reads it whole, once; from then on the
    module counts, since it may be changed.

    Args:
        path: of the file.
        config: of the transformer.
        device: of the weights.
        dtype: to round to: a floating one, or int8 by rows. The module then has the rounded weights in fp32.

    Attributes:
        weights: as stored.
        rounded_to: the dtype, if it does not hold all weights exactly; else None.

    Raises:
        CogViewError: the file cannot be read.
        MisfitError: the file does not fit the config.
    """

    def __init__(
        self, path: Path, config: TransformerConfig, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        self.weights = StoredWeights(path)
        self._shell = build_to_fit(
            lambda: Transformer(config),
            config.num_layers,
            self.weights.shapes,
            tensors_per_part=LEAST_TENSORS_OF_A_LAYER,
        )
        self.config = config
        self.device = torch.device(device)
        self.prepared_dtype = dtype
        self.dtype = torch.float32 if dtype == torch.int8 else dtype
        is_exact = all(
            torch.promote_types(self.weights.dtype_of(name), self.dtype) == self.dtype
            for name in self.weights
        ) and (dtype != torch.int8 or self.weights.is_quantized)
        self.rounded_to = None if is_exact else dtype
        self._lock = Lock()
        self._module: Transformer | None = None

    @property
    def module(self) -> Transformer:
        """The whole transformer, in evaluation mode."""
        with self._lock:
            if self._module is None:
                weights = {name: self.tensor(name) for name in self.weights}
                self._shell.load_state_dict(weights, assign=True)
                self._module = self._shell.eval()
            return self._module

    @property
    def latest(self) -> "Transformer | StoredTransformer":
        """The module if it was read, else this."""
        return self if self._module is None else self._module

    @property
    def meta_transformer(self) -> Transformer:
        """The transformer's structure; its tensors must not be used."""
        return self._shell

    def meta_weights(self) -> dict[str, Tensor]:
        """Return the module's tensors by name, on the meta device."""
        return {
            name: torch.empty(tuple(shape), dtype=self.dtype, device="meta")
            for name, shape in self.weights.shapes.items()
        }

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the module's state dict, on the device."""
        tensor = self.weights[name]
        if self.prepared_dtype == torch.int8 and is_quantized(name):
            tensor = QuantizedRows.of(tensor).floats()
        return tensor.to(self.device, self.dtype)

    def table(self, name: str = "embedding.tokens.weight") -> Tensor:
        """Return the rows of the embedding or head in the narrowest dtype that holds the module's values."""
        stored = self.weights[name]
        is_exact = torch.promote_types(stored.dtype, self.dtype) == self.dtype
        return stored.to(self.device, stored.dtype if is_exact else self.dtype)

    def blocks(self) -> Iterator[SandwichBlock]:
        """Yield the blocks, read one at a time."""
        for index in range(self.config.num_layers):
            with uninitialised("meta"):
                block = SandwichBlock(self.config)
            yield self._load(block, f"blocks.{index}.")

    def outside_blocks(self) -> Transformer:
        """Return a transformer without blocks, token table and head's weight, which are on the meta device."""
        with uninitialised("meta"):
            whole = Transformer(self.config)
        read_apart = ("blocks.", "embedding.tokens.", "own_head.weight")
        names = [name for name in whole.state_dict() if not name.startswith(read_apart)]
        whole.load_state_dict({name: self.tensor(name) for name in names}, strict=False, assign=True)
        return whole.eval()

    def _load(self, module: Module, prefix: str) -> Module:
        state = {name: self.tensor(prefix + name) for name in module.state_dict()}
        module.load_state_dict(state, assign=True)
        return module.eval()
