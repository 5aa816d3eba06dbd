"""Low-rank adapters (LoRA) beside a shared base.

An adapted transformer's modules hold the base's own weights, not copies, beside those of the adapter. The base is
unchanged, so any number of adapters can be used at the same time, in several threads too.

Beyond the paper, which finetunes a whole transformer for each task.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.errors import UsageError
from cogview.transformer.config import AdapterConfig
from cogview.transformer.model import Transformer
from cogview.transformer.normalization import RelaxedLayerNorm
from cogview.uninitialised import uninitialised

POSITIONS = "embedding.positions.weight"
"""Name of a position table among a transformer's or adapter's tensors."""

_POSITIONS = ("embedding.positions.", "embedding.grid_")
"""Start of the names of the position embeddings."""

_NORMS = (RelaxedLayerNorm, nn.RMSNorm)


class LowRankLinear(nn.Linear):
    """y = W x + b + (alpha / rank) up(down(x)), where W and b are the base's.

    `down` starts at random and `up` at zero, so that the initial map is the base's.

    Args:
        base: map to adapt.
        config: rank and alpha.
        generator: for `down`, on the CPU.
    """

    def __init__(self, base: nn.Linear, config: AdapterConfig, generator: torch.Generator) -> None:
        with uninitialised("meta"):
            super().__init__(base.in_features, base.out_features)
        with uninitialised(base.weight.device):
            self.down, self.up = (
                nn.Linear(*sizes, bias=False, dtype=base.weight.dtype)
                for sizes in ((base.in_features, config.rank), (config.rank, base.out_features))
            )
        self.weight, self.bias = base.weight, base.bias
        self.scale = config.alpha / config.rank
        down = torch.randn(config.rank, base.in_features, generator=generator)
        self.down.weight.data.copy_(down * base.in_features**-0.5)
        self.up.weight.data.zero_()

    def forward(self, input: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """Apply the base's map and the adapter's."""
        return super().forward(input) + self.scale * self.up(self.down(input))

    def merged_weight(self) -> Float[Tensor, "o i"]:
        """Return the weight of a single map that computes the same."""
        delta = self.up.weight.detach().float() @ self.down.weight.detach().float()
        return (self.weight.detach() + self.scale * delta).to(self.weight.dtype)


class TokenTable(nn.Embedding):
    """Embedding with some rows of its own, initially copies; all others are the base's.

    Args:
        base: embedding to adapt.
        ids: of its own rows.
    """

    ids: Int64[Tensor, "n"]
    index_of: Int64[Tensor, "v"]

    def __init__(self, base: nn.Embedding, ids: tuple[int, ...]) -> None:
        with uninitialised("meta"):
            super().__init__(base.num_embeddings, base.embedding_dim)
        self.weight = base.weight
        self.rows = nn.Parameter(base.weight.detach()[list(ids)].clone())
        self.register_buffer("ids", torch.tensor(ids, device=base.weight.device), persistent=False)
        index_of = torch.full((base.num_embeddings,), -1, device=base.weight.device)
        index_of[self.ids] = torch.arange(len(ids), device=base.weight.device)
        self.register_buffer("index_of", index_of, persistent=False)
        self._ids = ids

    def forward(self, input: Int[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """Embed tokens."""
        indices = self.index_of[input]
        own = F.embedding(indices.clamp(min=0), self.rows)
        return torch.where(indices[..., None] >= 0, own, super().forward(input))

    def part(self, rows: range) -> Float[Tensor, "v d"]:
        """Return the rows of a range of ids."""
        indices, own = self.own_in(rows)
        base = self.weight[rows.start : rows.stop]
        return base.index_copy(0, indices, own) if len(indices) else base

    def own_in(self, rows: range) -> tuple[Int64[Tensor, "k"], Float[Tensor, "k d"]]:
        """Return the indices, within a range of ids, of its own rows, and these rows."""
        indices = [index for index, token in enumerate(self._ids) if token in rows]
        return self.ids[indices] - rows.start, self.rows[indices]


class HeadRows(nn.Linear):
    """Head with some rows of its own, initially copies; all others are the base's.

    Args:
        base: head to adapt.
        ids: of its own rows.
    """

    def __init__(self, base: nn.Linear, ids: tuple[int, ...]) -> None:
        with uninitialised("meta"):
            super().__init__(base.in_features, base.out_features)
        self.weight, self.bias = base.weight, base.bias
        self.rows = nn.Parameter(base.weight.detach()[list(ids)].clone())
        self.row_biases = nn.Parameter(base.bias.detach()[list(ids)].clone())
        self._ids = ids

    def part(self, rows: range) -> tuple[Float[Tensor, "v d"], Float[Tensor, "v"]]:
        """Return weights and biases of a range of ids."""
        weight, bias = (each[rows.start : rows.stop] for each in (self.weight, self.bias))
        indices, own, biases = self.own_in(rows)
        if not len(indices):
            return weight, bias
        return weight.index_copy(0, indices, own), bias.index_copy(0, indices, biases)

    def own_in(self, rows: range) -> tuple[Int64[Tensor, "k"], Float[Tensor, "k d"], Float[Tensor, "k"]]:
        """Return the indices, within a range of ids, of its own rows, and these rows with their biases."""
        indices = [index for index, token in enumerate(self._ids) if token in rows]
        places = torch.tensor([self._ids[index] - rows.start for index in indices], dtype=torch.int64)
        return places.to(self.rows.device), self.rows[indices], self.row_biases[indices]


class AdaptedTransformer(Transformer):
    """Transformer that shares the weights of its base and adds an adapter.

    This freezes the base's weights. The state dict has the adapter's tensors alone, under their names in this module.

    Args:
        base: must not be adapted itself.
        adapter: to add. A fresh adapter changes no bit of the output at the base's positions.
        seed: of the random start.
        positions: initial position table of the adapter; by default the base's rows as far as they go.

    Attributes:
        base: stays as it is.

    Raises:
        UsageError: the adapter has token rows that the base lacks.
    """

    base: Transformer

    def __init__(
        self,
        base: Transformer,
        adapter: AdapterConfig,
        seed: int = 0,
        positions: Float[Tensor, "p d"] | None = None,
    ) -> None:
        assert not isinstance(base, AdaptedTransformer), "the base is not adapted"
        if max(adapter.token_rows, default=0) >= base.config.vocabulary_size:
            raise UsageError(
                f"adapter.token_rows must be below {base.config.vocabulary_size}, got {list(adapter.token_rows)}"
            )
        config = base.config
        if adapter.num_positions is not None:
            config = replace(config, num_positions=adapter.num_positions, position_table="learned")
        with uninitialised("meta"):  # replaced by the base's weights
            super().__init__(config)
        self.adapter = adapter
        object.__setattr__(self, "base", base)  # not as a submodule: its weights are already here
        base.requires_grad_(False)
        for name, parameter in base.named_parameters():
            path, _, leaf = name.rpartition(".")
            if adapter.num_positions is not None and name.startswith(_POSITIONS):
                continue
            setattr(self.get_submodule(path), leaf, parameter)
        generator = torch.Generator().manual_seed(seed)
        for block in self.blocks:
            for name in adapter.maps:
                path, _, leaf = name.rpartition(".")
                parent = block.get_submodule(path)
                setattr(parent, leaf, LowRankLinear(getattr(parent, leaf), adapter, generator))
        if adapter.trains_norms:
            for norm in [child for child in self.modules() if isinstance(child, _NORMS)]:
                for leaf, parameter in list(norm.named_parameters()):
                    setattr(norm, leaf, nn.Parameter(parameter.detach().clone()))
        if adapter.num_positions is not None:
            self.embedding.positions.weight = nn.Parameter(
                first_positions(base, adapter.num_positions, generator)
                if positions is None
                else positions.clone()
            )
            assert self.embedding.positions.weight.shape == (config.num_positions, config.hidden_size)
        if adapter.token_rows:
            self.embedding.tokens = TokenTable(self.embedding.tokens, adapter.token_rows)
            if config.head == "own":
                self.own_head = HeadRows(self.own_head, adapter.token_rows)
        self._own = frozenset(name for name, each in self.named_parameters() if each.requires_grad)
        self.register_state_dict_post_hook(_keep_own)  # type: ignore[no-untyped-call]
        self.train(base.training)

    def head(self, rows: range | None = None) -> Float[Tensor, "v d"]:
        """Return the rows of the head: all, or those of the tokens in `rows`."""
        whole = range(self.config.vocabulary_size) if rows is None else rows
        if self.config.head == "own":
            head = self.own_head
            return head.part(whole)[0] if isinstance(head, HeadRows) else super().head(rows)
        table = self.embedding.tokens
        return table.part(whole) if isinstance(table, TokenTable) else super().head(rows)

    def head_bias(self, rows: range | None = None) -> Float[Tensor, "v"] | None:
        """Return the bias of the head, if it has one: all, or that of the tokens in `rows`."""
        if self.config.head != "own" or not isinstance(self.own_head, HeadRows):
            return super().head_bias(rows)
        return self.own_head.part(range(self.config.vocabulary_size) if rows is None else rows)[1]

    def at_strength(self, strength: float) -> "AdaptedTransformer":
        """Return a copy that shares all weights and scales the low-rank maps by a factor.

        Below 1, a style is weaker.

        Raises:
            UsageError: the strength is not greater than 0.
        """
        if not 0 < strength < float("inf"):
            raise UsageError(f"an adapter's strength must be greater than 0 and finite, got {strength:g}")
        shared = {id(tensor): tensor for tensor in (self.base, *self.parameters(), *self.buffers())}
        other = copy.deepcopy(self, shared)
        other.adapter = replace(self.adapter, alpha=self.adapter.alpha * strength)
        for module in other.modules():
            if isinstance(module, LowRankLinear):
                module.scale *= strength
        return other

    @torch.no_grad()
    def merged(self) -> Transformer:
        """Return a plain transformer with weights of its own that computes the same."""
        with uninitialised("meta"):
            whole = Transformer(self.config)
        weights = {name: self._merged(name).detach().clone() for name in whole.state_dict()}
        whole.load_state_dict(weights, assign=True)
        return whole.train(self.training)

    def _merged(self, name: str) -> Tensor:
        """Return a weight of the merged transformer."""
        path, _, leaf = name.rpartition(".")
        module = self.get_submodule(path)
        if isinstance(module, LowRankLinear) and leaf == "weight":
            return module.merged_weight()
        if isinstance(module, TokenTable):
            return module.part(range(module.num_embeddings))
        if isinstance(module, HeadRows):
            return module.part(range(module.out_features))[leaf == "bias"]
        return module.get_parameter(leaf)


def adapter_shapes(base: Transformer, adapter: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an adapter's tensors by name, without creating them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, block in enumerate(base.blocks):
        for name in adapter.maps:
            linear = block.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            shapes[f"blocks.{index}.{name}.down.weight"] = (adapter.rank, linear.in_features)
            shapes[f"blocks.{index}.{name}.up.weight"] = (linear.out_features, adapter.rank)
    if adapter.trains_norms:
        for name, module in base.named_modules():
            if isinstance(module, _NORMS):
                shapes.update(
                    {f"{name}.{leaf}": tuple(each.shape) for leaf, each in module.named_parameters()}
                )
    if adapter.num_positions is not None:
        shapes[POSITIONS] = (adapter.num_positions, base.config.hidden_size)
    if adapter.token_rows:
        shapes["embedding.tokens.rows"] = (len(adapter.token_rows), base.config.hidden_size)
        if base.config.head == "own":
            shapes["own_head.rows"] = shapes["embedding.tokens.rows"]
            shapes["own_head.row_biases"] = (len(adapter.token_rows),)
    return shapes


def first_positions(
    base: Transformer, num_positions: int, generator: torch.Generator
) -> Float[Tensor, "p d"]:
    """Return a position table: the base's rows, then random ones as in a new transformer."""
    first = base.embedding.position_table().detach()[:num_positions]
    new = torch.randn(num_positions - len(first), first.shape[1], generator=generator) * 0.02
    return torch.cat([first, new.to(first)])


def lengthen_text(
    positions: Float[Tensor, "p d"], new: Float[Tensor, "n d"], num_text: int
) -> Float[Tensor, "n d"]:
    """Return a position table for longer texts: those of pictures move up, and new rows stand between.

    Args:
        positions: the table as it was.
        new: a table of the new length, of which the rows between are taken.
        num_text: positions of the shorter text, with its separator.
    """
    num_others = len(positions) - num_text
    return torch.cat([positions[:num_text], new[num_text : len(new) - num_others], positions[num_text:]])


def _keep_own(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Drop the base's tensors from a state dict."""
    assert isinstance(module, AdaptedTransformer)
    own = {f"{prefix}{name}" for name in module._own}
    for name in [name for name in state if name.startswith(prefix) and name not in own]:
        del state[name]
