"""A small model of the released layout: random weights, its plain computation, and how ranks share it."""

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

HIDDEN, LAYERS, HEADS, ROWS, POSITIONS = 128, 3, 2, 58_240, 1_089
State = dict[str, Tensor]


def released_state(hidden: int = HIDDEN, layers: int = LAYERS, dtype: torch.dtype = torch.float16) -> State:
    """Return random weights by the names of the release."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, std: float = 0.1, mean: float = 0.0) -> Tensor:
        return (mean + std * torch.randn(shape, generator=generator)).to(dtype)

    state = {
        "word_embeddings.weight": drawn(ROWS, hidden, std=0.02),
        "transformer.position_embeddings.weight": drawn(POSITIONS, hidden, std=0.02),
    }
    norms = ("input_layernorm", "post_attention_layernorm", "third_layernorm", "fourth_layernorm")
    maps = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (4 * hidden, hidden),
        "mlp.dense_4h_to_h": (hidden, 4 * hidden),
    }
    for layer in range(layers):
        prefix = f"transformer.layers.{layer}"
        for name in norms:
            state[f"{prefix}.{name}.weight"] = drawn(hidden, mean=1.0, std=0.3)
            state[f"{prefix}.{name}.bias"] = drawn(hidden)
        for name, shape in maps.items():
            state[f"{prefix}.{name}.weight"] = drawn(*shape)
            state[f"{prefix}.{name}.bias"] = drawn(shape[0])
    state["transformer.final_layernorm.weight"] = drawn(hidden, mean=1.0, std=0.3)
    state["transformer.final_layernorm.bias"] = drawn(hidden)
    return state


def released_logits(state: State, tokens: Tensor, positions: Tensor, heads: int = HEADS) -> Tensor:
    """Return the logits [b t v] of tokens [b t], written as plainly as the release's description allows."""
    weights = {name: tensor.float() for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        x = x / (x.abs().max() / 8)
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    b, t = tokens.shape
    x = (
        weights["word_embeddings.weight"][tokens]
        + weights["transformer.position_embeddings.weight"][positions]
    )
    future = torch.ones(t, t).triu(1).bool()
    for layer in range(sum(name.endswith("third_layernorm.weight") for name in state)):
        prefix = f"transformer.layers.{layer}"
        stacked = linear(norm(x, f"{prefix}.input_layernorm"), f"{prefix}.attention.query_key_value")
        query, key, value = (part.view(b, t, heads, -1).transpose(1, 2) for part in stacked.chunk(3, -1))
        scores = query @ (key / math.sqrt(key.shape[-1])).transpose(-1, -2)
        attended = scores.masked_fill(future, -1e4).softmax(-1) @ value
        mapped = linear(attended.transpose(1, 2).reshape(b, t, -1), f"{prefix}.attention.dense")
        x = x + norm(mapped, f"{prefix}.third_layernorm")
        inner = linear(norm(x, f"{prefix}.post_attention_layernorm"), f"{prefix}.mlp.dense_h_to_4h")
        inner = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + norm(linear(inner, f"{prefix}.mlp.dense_4h_to_h"), f"{prefix}.fourth_layernorm")
    return norm(x, "transformer.final_layernorm") @ weights["word_embeddings.weight"].T


def share_of(state: State, num_ranks: int, rank: int) -> State:
    """Return what a rank of model parallelism holds: rows of maps that widen, columns of those that narrow."""
    held = {}
    for name, tensor in state.items():
        if "query_key_value" in name:
            third = len(tensor) // 3
            size = third // num_ranks
            held[name] = torch.cat(
                [tensor[start * third + rank * size :][:size] for start in range(3)]  # of Q, of K, of V
            )
        elif name == "word_embeddings.weight" or "dense_h_to_4h" in name:
            size = len(tensor) // num_ranks
            held[name] = tensor[rank * size : (rank + 1) * size].clone()
        elif name.endswith(("attention.dense.weight", "dense_4h_to_h.weight")):
            size = tensor.shape[1] // num_ranks
            held[name] = tensor[:, rank * size : (rank + 1) * size].clone()
        else:
            held[name] = tensor
    return held


def write_released(state: State, folder: Path, num_ranks: int = 1, pointer: str = "latest") -> Path:
    """Write weights as a folder of the release and return it."""
    iteration = folder / "142000"
    iteration.mkdir(parents=True)
    (folder / pointer).write_text("142000\n")
    for rank in range(num_ranks):
        content = {"iteration": 142000, "module": share_of(state, num_ranks, rank)}
        torch.save(content, iteration / f"mp_rank_{rank:02d}_model_states.pt")
    return folder


def text_model_of_50_000_pieces(path: Path) -> Path:
    """Write a SentencePiece model of the release's size, which knows single letters, and return its path."""
    pieces = ["<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    pieces += [f"q{number}" for number in range(50_000 - len(pieces))]
    model = bytearray()
    for index, piece in enumerate(pieces):
        text = piece.encode()
        kind = b"\x18\x02" if index == 0 else b""  # unknown
        entry = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", -float(index)) + kind
        model += b"\x0a" + bytes([len(entry)]) + entry
    path.write_bytes(bytes(model))
    return path
