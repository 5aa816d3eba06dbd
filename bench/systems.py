"""The samplers that are compared: the authors' scheme, GPT-2 of transformers, and ours.

Each is put into the state in which a number of tokens has been read, and then asked to read one more and draw the
next code. What the state holds is random, since time does not depend on it.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cogview.decoding.config import Backend, SamplingConfig, StepKind
from cogview.decoding.engine import Runner, attention_of
from cogview.decoding.forward import Part, extend
from cogview.decoding.graphs import CudaRecorder, StaticSteps
from cogview.decoding.gumbel import draw_by_gumbel, key_of
from cogview.decoding.linear import prepare_linear
from cogview.decoding.pool import PagePool, Row, cache_dtype
from cogview.decoding.proposer import Proposer
from cogview.decoding.request import Context, Request
from cogview.decoding.running_sequence import Run
from cogview.decoding.static_step import StepInput, bucket_of
from cogview.transformer.model import Transformer

Product = Callable[[Tensor], Tensor]


class System(Protocol):
    """A sampler that can be stopped and set on at any length."""

    name: str

    def start(self, batch: int, length: int) -> None:
        """Make the state in which `length` tokens of `batch` sequences have been read."""
        ...

    def step(self) -> None:
        """Read one token of each sequence and draw the next."""
        ...

    def stop(self) -> None:
        """Forget the state, which may be large."""
        ...


def draw_from_vocabulary(logits: Tensor, top_k: int, num_codes: int) -> Tensor:
    """Draw codes as both rivals do: mask the whole vocabulary, take the softmax of all of it, draw."""
    logits = logits.clone()
    logits[:, num_codes:] = -torch.inf
    smallest_kept = logits.topk(min(top_k, num_codes)).values[:, -1:]
    logits[logits < smallest_kept] = -torch.inf
    return torch.multinomial(torch.softmax(logits.float(), dim=-1), 1).squeeze(1)


class AuthorsScheme:
    """Decoding as the released code does it, written plainly.

    What is kept of the tokens read is each layer's input. For every new token these are normalised once more, put
    before the new token's, and mapped to Q, K and V all over; the queries of the past are then thrown away. The
    whole vocabulary's logits are computed.

    Args:
        transformer: the weights, Sandwich-LN.
        top_k: codes to draw from.
        num_codes: codes that are legal.
        packed: run the linear maps on the kernels that ours run on.
    """

    def __init__(self, transformer: Transformer, top_k: int, num_codes: int, packed: bool = False) -> None:
        self.name = "authors' scheme, same kernels" if packed else "authors' scheme"
        self.transformer = transformer
        self.top_k, self.num_codes = top_k, num_codes

        def linear(weight: Tensor, bias: Tensor | None = None) -> Product:
            if not packed:
                return lambda x: F.linear(x, weight, bias)
            product = prepare_linear(weight, bias, backend="packed", batch_invariant=False)
            return lambda x: product(x.flatten(0, -2)).view(*x.shape[:-1], -1)

        def maps(block: nn.Module) -> tuple[Product, Product, Product, Product]:
            layers = (
                block.attention.query_key_value,
                block.attention.output,
                block.mlp.inner,
                block.mlp.output,
            )
            return tuple(linear(layer.weight.detach(), layer.bias.detach()) for layer in layers)

        self.maps = [maps(block) for block in transformer.blocks]
        self.head = linear(transformer.embedding.tokens.weight.detach())

    def start(self, batch: int, length: int) -> None:
        """Make up the inputs that each layer had."""
        config = self.transformer.config
        table = self.transformer.embedding.tokens.weight
        shape = (batch, length, config.hidden_size)
        self.memories = [
            torch.rand(shape, dtype=table.dtype, device=table.device) for _ in range(config.num_layers)
        ]
        self.tokens = torch.zeros(batch, 1, dtype=torch.int64, device=table.device)
        self.positions = torch.full_like(self.tokens, length)

    def stop(self) -> None:
        """Forget the layers' inputs."""
        del self.memories

    def step(self) -> None:
        """Read one token of each sequence and draw the next."""
        logits = self.read(self.tokens, self.positions)
        self.tokens = draw_from_vocabulary(logits, self.top_k, self.num_codes)[:, None]
        self.positions = self.positions + 1

    def read(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Read one token of each sequence, [b 1], and return the logits [b v] of the next."""
        config = self.transformer.config
        x = self.transformer.embedding(tokens, positions)
        memories = []
        for block, memory, maps in zip(self.transformer.blocks, self.memories, self.maps, strict=True):
            query_key_value, attention_output, mlp_inner, mlp_output = maps
            memories.append(torch.cat([memory, x], dim=1))
            # Normalised apart, as released: with the maximum over the whole tensor it makes a difference.
            past, present = block.attention_input_norm(memory), block.attention_input_norm(x)
            mapped = query_key_value(torch.cat([past, present], dim=1))
            heads = mapped.unflatten(-1, (3, config.num_heads, config.head_size)).permute(2, 0, 3, 1, 4)
            query, key, value = heads[0][:, :, -1:], heads[1], heads[2]
            scores = query @ (key / config.head_size**0.5).transpose(-2, -1)
            attended = torch.softmax(scores, dim=-1) @ value
            attended = attention_output(attended.transpose(1, 2).flatten(2))
            x = x + block.attention_output_norm(attended)
            inner = F.gelu(mlp_inner(block.mlp_input_norm(x)), approximate="tanh")
            x = x + block.mlp_output_norm(mlp_output(inner))
        self.memories = memories
        return self.head(self.transformer.final_norm(x))[:, -1]


class GPT2:
    """GPT-2 of transformers with its own key/value cache, called without the overhead of its `generate`.

    Args:
        transformer: whose shape, dtype and device are taken.
        top_k: codes to draw from.
        num_codes: codes that are legal.
        packed: run the linear maps on the kernels that ours run on.
    """

    def __init__(self, transformer: Transformer, top_k: int, num_codes: int, packed: bool = False) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        self.name = "transformers GPT-2, same kernels" if packed else "transformers GPT-2"
        self.config, self.top_k, self.num_codes = transformer.config, top_k, num_codes
        table = transformer.embedding.tokens.weight
        self.dtype, self.device = table.dtype, table.device
        shape = GPT2Config(
            vocab_size=self.config.vocabulary_size,
            n_positions=self.config.num_positions,
            n_embd=self.config.hidden_size,
            n_layer=self.config.num_layers,
            n_head=self.config.num_heads,
            bos_token_id=0,
            eos_token_id=0,
        )
        self.model = GPT2LMHeadModel(shape).to(self.device, self.dtype).eval()
        if packed:
            _pack_linear_maps(self.model)

    def start(self, batch: int, length: int) -> None:
        """Make up keys and values."""
        from transformers import DynamicCache

        self.cache = DynamicCache(config=self.model.config)
        shape = (batch, self.config.num_heads, length, self.config.head_size)
        for layer in range(self.config.num_layers):
            key, value = (torch.rand(shape, dtype=self.dtype, device=self.device) for _ in range(2))
            if length:
                self.cache.update(key, value, layer)
        self.tokens = torch.zeros(batch, 1, dtype=torch.int64, device=self.device)

    def stop(self) -> None:
        """Forget keys and values."""
        del self.cache

    def step(self) -> None:
        """Read one token of each sequence and draw the next."""
        logits = self.model(input_ids=self.tokens, past_key_values=self.cache, use_cache=True).logits[:, -1]
        self.tokens = draw_from_vocabulary(logits, self.top_k, self.num_codes)[:, None]

    def generate(self, num_prefix: int, num_codes: int) -> None:
        """Draw all codes of one picture."""
        self.start(1, 0)
        self.tokens = torch.zeros(1, num_prefix, dtype=torch.int64, device=self.device)
        for _ in range(num_codes):
            self.step()


class Ours:
    """Our engine.

    Args:
        transformer: the weights.
        top_k: codes to draw from.
        num_codes: codes that are legal.
        dtype: of the linear maps.
        backend: kernels.
        steps: how the engine runs passes.
    """

    def __init__(
        self,
        transformer: Transformer,
        top_k: int,
        num_codes: int,
        dtype: torch.dtype,
        backend: Backend,
        steps: StepKind = "plain",
    ) -> None:
        self.name = f"ours, {str(dtype).removeprefix('torch.')}, {backend}"
        self.config = SamplingConfig(top_k=min(top_k, num_codes))
        self.shape, self.num_codes = transformer.config, num_codes
        self.dtype = dtype
        # Plain products need much padding for it; random weights leave nothing to guess.
        self.runner = Runner.of(
            transformer,
            dtype=dtype,
            backend=backend,
            batch_invariant=backend != "plain",
            proposer=Proposer(1),
            steps=steps,
        )

    def start(self, batch: int, length: int) -> None:
        """Make up keys and values."""
        weights = self.runner.engine.weights
        pool_dtype = cache_dtype(self.shape, self.dtype, weights.device.type)
        self.pool = PagePool(self.shape, 1, pool_dtype, weights.device)
        self.rows = [Row(self.pool, self.shape.num_positions) for _ in range(batch)]
        for row in self.rows:
            row.reserve()
            row.length = length
        self.pool.keys.uniform_()
        self.pool.values.uniform_()
        self.tokens = torch.zeros(batch, dtype=torch.int64, device=weights.device)
        self.positions = torch.full_like(self.tokens, length)
        self.keys = torch.tensor([key_of(seed) for seed in range(batch)], device=weights.device)

    def stop(self) -> None:
        """Forget keys and values."""
        del self.pool, self.rows

    def read(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Read one token of each sequence and return the logits of the legal codes."""
        engine, batch = self.runner.engine, len(self.rows)
        attend = attention_of(engine.weights, self.pool, self.rows, [1] * batch)
        parts = [Part(variant=self.runner.variant, start=0, stop=batch)]
        hidden = extend(engine.weights, parts, tokens, positions, attend, np.arange(batch))
        for row in self.rows:
            row.length += 1
        return self.runner.variant.head(range(self.num_codes))(hidden)

    def step(self) -> None:
        """Read one token of each sequence and draw the next."""
        logits = self.read(self.tokens, self.positions)
        self.tokens = draw_by_gumbel(logits, [self.config] * len(logits), self.keys, self.positions).tokens
        self.positions = self.positions + 1

    def bytes_per_step(self, batch: int, length: float) -> float:
        """Return what a step must read: the weights of the blocks and of the legal rows of the head, and the cache."""
        d, inner = self.shape.hidden_size, self.shape.mlp_factor * self.shape.hidden_size
        num_weights = self.shape.num_layers * (4 * d * d + 2 * d * inner) + self.num_codes * d
        cache_itemsize = cache_dtype(self.shape, self.dtype, self.runner.engine.weights.device.type).itemsize
        num_cached = 2 * self.shape.num_layers * d * batch * length
        return num_weights * self.dtype.itemsize + num_cached * cache_itemsize

    def generate(self, num_prefix: int, num_codes: int) -> None:
        """Draw all codes of one picture."""
        count = np.arange(num_prefix + num_codes)
        context = Context(
            tokens=np.zeros(num_prefix, dtype=np.int64),
            positions=count[:num_prefix],
            next_positions=count[num_prefix:],
        )
        self.runner.engine.run(
            [
                Request(
                    context=context,
                    legal=range(self.num_codes),
                    sampling=self.config,
                    variant=self.runner.variant,
                )
            ]
        )


class OursInGraphs(Ours):
    """Our engine by steps of static shapes, which CUDA graphs replay; on CPU they are computed each time.

    Args:
        transformer: the weights.
        top_k: codes to draw from.
        num_codes: codes that are legal.
        dtype: of the linear maps.
    """

    def __init__(self, transformer: Transformer, top_k: int, num_codes: int, dtype: torch.dtype) -> None:
        is_on_cuda = transformer.device.type == "cuda"
        steps: StepKind = "graphs" if is_on_cuda else "static"
        super().__init__(transformer, top_k, num_codes, dtype, "plain" if is_on_cuda else "auto", steps)
        self.name += ", graphs"

    def start(self, batch: int, length: int) -> None:
        """Make up keys and values, and capture the step."""
        super().start(batch, length)
        weights = self.runner.engine.weights
        recorder = CudaRecorder(weights.device) if weights.device.type == "cuda" else None
        self.static = StaticSteps(weights, self.pool, recorder)
        self.codes = np.zeros(batch, dtype=np.int64)
        for _ in range(2):
            self.step()
        for row in self.rows:
            row.length = length
        self.codes[:] = 0

    def stop(self) -> None:
        """Forget keys and values."""
        del self.static
        super().stop()

    def step(self) -> None:
        """Read one token of each sequence and draw the next."""
        shares = [
            StepInput(
                runs=[Run(row=row, tokens=self.codes[each, None], positions=np.array([row.length]))],
                places=np.array([row.length]),
                states=[np.array([0])],
                sampling=self.config,
                key=key_of(each),
            )
            for each, row in enumerate(self.rows)
        ]
        bucket = bucket_of(self.runner.variant, range(self.num_codes), shares)
        assert bucket is not None, "a step of one token a row is small"
        self.codes = np.array([int(each.tokens[0]) for each in self.static.draw(bucket, shares)])
        for row in self.rows:
            row.length += 1


class _Packed(nn.Module):
    """Stands in for a linear layer."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.product = prepare_linear(weight, bias, backend="packed", batch_invariant=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x.flatten(0, -2)).view(*x.shape[:-1], -1)


def _pack_linear_maps(model: nn.Module) -> None:
    """Put packed maps into the place of GPT-2's, whose weights are the other way round in the blocks."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "Conv1D":
                setattr(parent, name, _Packed(child.weight.T.contiguous(), child.bias))
            elif isinstance(child, nn.Linear):
                setattr(parent, name, _Packed(child.weight, child.bias))
