"""ruDALL-E and RuDOLPH written plainly from a description of their layout: checkpoints by a rule, masks, logits."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]

WIDTH, HEADS, LAYERS, SIDE, TEXT, RIGHT = 32, 2, 8, 12, 6, 5
PIECES, SPECIAL, CODES, SPECIAL_CODES = 20, 7, 16, 3


def mask_of(kind: str, text: int, side: int, right: int = 0, kernel: int = 11, wraps: bool = False) -> Tensor:
    """Return which tokens see which, [t t], pair by pair."""
    num, stop = text + side * side + right, text + side * side

    def is_seen(query: int, key: int) -> bool:
        if key > query or not (text <= key and query < stop):
            return key <= query
        down, across = (
            (query - text) // side - (key - text) // side,
            (query - text) % side - (key - text) % side,
        )
        if kind == "row":
            return query - key <= side
        if kind == "column":
            return across == 0
        near = [min(each, side - each) if wraps else each for each in (abs(down), abs(across))]
        return max(near) <= kernel // 2

    return torch.tensor([[is_seen(query, key) for key in range(num)] for query in range(num)])


def checkpoint(
    *,
    rudolph: bool = False,
    version: str = "v3",
    kernels: tuple[int, int] = (3, 5),
    special: int = 0,
    pieces: int = PIECES,
    seed: int = 0,
) -> State:
    """Return a checkpoint with its masks, all weights drawn.

    Args:
        rudolph: of RuDOLPH instead of ruDALL-E.
        version: of ruDALL-E.
        kernels: of RuDOLPH's squares.
        special: special pieces of RuDOLPH.
        pieces: of the text tokenizer.
        seed: of the weights.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, around: float = 0.0) -> Tensor:
        return around + 0.3 * torch.randn(*shape, generator=generator)

    num_texts = pieces + special + TEXT
    num_codes = CODES + (SPECIAL_CODES if special else 0)
    state = {
        "text_embeddings.weight": draw(num_texts, WIDTH),
        "image_embeddings.weight": draw(num_codes, WIDTH),
        "image_row_embeddings.weight": draw(SIDE, WIDTH),
        "image_col_embeddings.weight": draw(SIDE, WIDTH),
        "to_logits.0.weight": draw(WIDTH, around=1.0),
        "to_logits.0.bias": draw(WIDTH),
        "to_logits.1.weight": draw(num_texts + num_codes, WIDTH),
        "to_logits.1.bias": draw(num_texts + num_codes),
        "transformer.final_layernorm.weight": draw(WIDTH, around=1.0),
        "transformer.final_layernorm.bias": draw(WIDTH),
    }
    names = ("l_text_pos_embeddings", "r_text_pos_embeddings") if rudolph else ("text_pos_embeddings",)
    for name, num in zip(names, (TEXT, RIGHT), strict=False):
        state[f"{name}.weight"] = draw(num + 1, WIDTH)
    for layer in range(LAYERS):
        prefix = f"transformer.layers.{layer}."
        for norm in (
            "input_layernorm",
            "before_first_addition_layernorm",
            "post_attention_layernorm",
            "before_second_addition_layernorm",
        ):
            state[f"{prefix}{norm}.weight"], state[f"{prefix}{norm}.bias"] = (
                draw(WIDTH, around=1.0),
                draw(WIDTH),
            )
        for name, num_out, num_in in (
            ("attention.query_key_value", 3 * WIDTH, WIDTH),
            ("attention.dense", WIDTH, WIDTH),
            ("mlp.dense_h_to_4h", 4 * WIDTH, WIDTH),
            ("mlp.dense_4h_to_h", WIDTH, 4 * WIDTH),
        ):
            state[f"{prefix}{name}.weight"], state[f"{prefix}{name}.bias"] = (
                draw(num_out, num_in),
                draw(num_out),
            )
    right = RIGHT if rudolph else 0
    state["transformer.row_mask"] = mask_of("row", TEXT, SIDE, right)
    state["transformer.col_mask"] = mask_of("column", TEXT, SIDE, right)
    first = kernels[0] if rudolph else 11
    state["transformer.conv_mask"] = mask_of("square", TEXT, SIDE, right, first, version == "v2")
    if rudolph:
        state["transformer.last_conv_mask"] = mask_of("square", TEXT, SIDE, right, kernels[1])
    return state


def plain_logits(
    state: State, text: list[int], codes: list[int], right: list[int] | None = None, version: str = "v3"
) -> Tensor:
    """Return the logits of each token's successor: text ids first, then codes, [t v].

    Args:
        state: of a checkpoint.
        text: as given to the model, zeros for padding.
        codes: any number.
        right: tokens after the codes.
        version: of ruDALL-E.
    """
    num_texts = len(state["text_embeddings.weight"])
    ids = [num_texts - len(text) + place if piece == 0 else piece for place, piece in enumerate(text)]
    is_rudolph = "l_text_pos_embeddings.weight" in state
    if version == "v2" and not is_rudolph:
        ids = [2, *ids]
    left = state["l_text_pos_embeddings.weight" if is_rudolph else "text_pos_embeddings.weight"]
    x = state["text_embeddings.weight"][ids] + left[: len(ids)]
    rows = [state["image_row_embeddings.weight"][place // SIDE] for place in range(len(codes))]
    columns = [state["image_col_embeddings.weight"][place % SIDE] for place in range(len(codes))]
    if codes:
        x = torch.cat([x, state["image_embeddings.weight"][codes] + torch.stack(rows) + torch.stack(columns)])
    if right:
        x = torch.cat(
            [x, state["text_embeddings.weight"][right] + state["r_text_pos_embeddings.weight"][: len(right)]]
        )
    num = min(len(x), len(state["transformer.row_mask"]))
    x = x[:num]
    for layer in range(LAYERS):
        name = "conv_mask" if layer == LAYERS - 1 else "row_mask"
        if is_rudolph and layer % 4 == 3:
            name = "last_conv_mask" if layer == LAYERS - 1 else "conv_mask"
        if layer % 4 == 1:
            name = "col_mask"
        x = _block(state, f"transformer.layers.{layer}.", x, state[f"transformer.{name}"][:num, :num])
    x = _norm(state, "transformer.final_layernorm", x)
    x = _norm(state, "to_logits.0", x)
    return x @ state["to_logits.1.weight"].T + state["to_logits.1.bias"]


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def _block(state: State, prefix: str, x: Tensor, mask: Tensor) -> Tensor:
    def linear(name: str, y: Tensor) -> Tensor:
        return y @ state[f"{prefix}{name}.weight"].T + state[f"{prefix}{name}.bias"]

    stacked = linear("attention.query_key_value", _norm(state, f"{prefix}input_layernorm", x))
    query, key, value = (part.view(len(x), HEADS, -1).transpose(0, 1) for part in stacked.split(WIDTH, dim=1))
    scores = query @ key.transpose(1, 2) / math.sqrt(WIDTH // HEADS)
    weights = torch.where(mask, scores, torch.tensor(-10_000.0)).softmax(-1)
    attended = linear("attention.dense", (weights @ value).transpose(0, 1).reshape(len(x), WIDTH))
    x = x + _norm(state, f"{prefix}before_first_addition_layernorm", attended)
    inner = linear("mlp.dense_h_to_4h", _norm(state, f"{prefix}post_attention_layernorm", x))
    inner = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
    return x + _norm(state, f"{prefix}before_second_addition_layernorm", linear("mlp.dense_4h_to_h", inner))
