"""Configs of the transformer, its initialisation and its adapters."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from cogview.errors import UsageError

LayerNormPlacement = Literal["sandwich", "pre", "post"]
NormScope = Literal["token", "tensor", "none"]
AttentionKind = Literal["fused", "relaxed", "plain"]
AttentionPattern = Literal["dense", "three_region", "grid"]
GridMask = Literal["row", "column", "convolution"]
PositionTable = Literal["learned", "rows_and_columns"]
HeadKind = Literal["tied", "own"]
PositionStart = Literal["random", "rows_and_columns"]
AdaptedMap = Literal["attention.query_key_value", "attention.output", "mlp.inner", "mlp.output"]
"""Linear map of a block, by its name in it."""

LEAST_TENSORS_OF_A_LAYER = 12
"""Weights and biases of four linear maps and two norms, which every block has."""

MOST_OF_A_SIZE = 2**63 - 1
"""Largest that a tensor can have."""

MOST_TOKENS = 2**20
"""More than any sequence has, and few enough to allocate."""

MOST_GRID_TOKENS = 2**13
"""Most tokens of a sequence with masks of a grid, which have an entry for each pair of tokens."""


@dataclass(frozen=True, kw_only=True)
class ThreeRegionConfig:
    """Regions of three-region sparse attention; see `cogview.transformer.three_region`.

    Args:
        block_tokens: step of the window, in tokens; multiples of 128 are fast on a GPU.
        key_window_blocks: size of the window, in blocks, including the query's own.
        num_text_and_pivot_tokens: tokens seen beyond the window: all of the text, and pivots in the rest.
        image_start_token: id of the token that ends the text; the released models' [BOI1] by default.
        num_image_tokens: tokens after it that pivots are drawn from, even if a sequence is shorter.

    Raises:
        UsageError: a number below 1 or above `MOST_TOKENS`, or a negative id.

    Paper: appendix B; block, window and number of tokens are those of the release.
    """

    block_tokens: int = 128
    key_window_blocks: int = 6
    num_text_and_pivot_tokens: int = 768
    image_start_token: int = 58_193
    num_image_tokens: int = 1_024

    def __post_init__(self) -> None:
        for name in ("block_tokens", "key_window_blocks", "num_text_and_pivot_tokens", "num_image_tokens"):
            if not 1 <= getattr(self, name) <= MOST_TOKENS:
                raise UsageError(f"{name} must be 1 to {MOST_TOKENS:,}, got {getattr(self, name)}")
        if self.image_start_token < 0:
            raise UsageError(f"image_start_token must not be negative, got {self.image_start_token}")


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """The picture's codes as a grid: a mask per layer, and positions by row and column.

    Args:
        num_rows: rows of codes.
        num_columns: columns of codes.
        first_place: place in the sequence that the masks take for the grid's first cell; all places before it are text.
        first_position: position of the first code.
        masks: mask of each layer: `row` shows the last `num_columns` places, `column` the cells above, `convolution` a
            square of cells around the query's.
        kernel_sizes: odd side of each layer's square, in cells; 0 for other masks.
        wraps: whether squares go on at the opposite edge of the grid.

    Raises:
        UsageError: a number is out of range, or the lists differ in length.

    Beyond the paper: the masks are those of ruDALL-E and RuDOLPH, which build on it.
    """

    num_rows: int = 32
    num_columns: int = 32
    first_place: int = 64
    first_position: int = 65
    masks: tuple[GridMask, ...] = ()
    kernel_sizes: tuple[int, ...] = ()
    wraps: bool = False

    def __post_init__(self) -> None:
        for name in ("num_rows", "num_columns", "first_place", "first_position"):
            lowest = 0 if name == "first_position" else 1
            if not lowest <= getattr(self, name) <= MOST_GRID_TOKENS:
                raise UsageError(
                    f"{name} must be {lowest} to {MOST_GRID_TOKENS:,}, got {getattr(self, name)}"
                )
        if self.stop_place > MOST_GRID_TOKENS:
            raise UsageError(
                f"a grid of {self.num_rows} x {self.num_columns} after {self.first_place} tokens has more than "
                f"{MOST_GRID_TOKENS:,}: give fewer rows"
            )
        unknown = [mask for mask in self.masks if mask not in get_args(GridMask)]
        if unknown:
            raise UsageError(f"masks must be some of {', '.join(get_args(GridMask))}, got {unknown[0]!r}")
        if len(self.kernel_sizes) != len(self.masks):
            raise UsageError(
                f"kernel_sizes must be as many as masks, {len(self.masks)}, got {len(self.kernel_sizes)}"
            )
        for mask, size in zip(self.masks, self.kernel_sizes, strict=True):
            if (size % 2 != 1 or size < 1) if mask == "convolution" else size:
                raise UsageError(
                    f"the kernel size of a {mask} mask must be {_KERNEL_SIZES[mask]}, got {size}"
                )

    @property
    def num_cells(self) -> int:
        """Cells of the grid."""
        return self.num_rows * self.num_columns

    @property
    def stop_place(self) -> int:
        """Place after the last cell."""
        return self.first_place + self.num_cells

    @property
    def stop_position(self) -> int:
        """Position after the last code."""
        return self.first_position + self.num_cells


def masks_by_layer(
    num_layers: int, last: int = 11, every_fourth: int | None = None
) -> tuple[tuple[GridMask, ...], tuple[int, ...]]:
    """Return masks and kernel sizes of all layers, as ruDALL-E and RuDOLPH have them.

    The second of every four layers has columns, the last a square of cells, and the others have rows.

    Args:
        num_layers: of the transformer.
        last: kernel size of the last layer.
        every_fourth: kernel size of the last of every four layers; None for rows there too.
    """
    masks: list[GridMask] = []
    sizes: list[int] = []
    for layer in range(num_layers):
        size = every_fourth if layer % 4 == 3 else None
        size = None if layer % 4 == 1 else last if layer == num_layers - 1 else size
        masks.append("column" if layer % 4 == 1 else "row" if size is None else "convolution")
        sizes.append(size or 0)
    return tuple(masks), tuple(sizes)


_KERNEL_SIZES: dict[GridMask, str] = {"row": "0", "column": "0", "convolution": "odd"}


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape and stabilisers of one transformer.

    Args:
        num_layers: blocks.
        hidden_size: width of the main branch.
        num_heads: attention heads; divides `hidden_size`.
        vocabulary_size: rows of embedding and head, padding included; the released models' by default.
        num_positions: rows of the learned position table; the released models' by default.
        mlp_factor: inner width of the MLP, in units of `hidden_size`.
        layer_norm: where a residual branch f is normalised: `sandwich` x + LN(f(LN(x))), `pre` x + f(LN(x)),
            `post` LN(x + f(x)).
        norm_scope: over what PB-Relax takes max|x| before a LayerNorm: each `token`, the whole `tensor`
            (as the released weights expect), or `none` for a plain LayerNorm.
        attention: `fused` for PyTorch's kernels with fp32 accumulation, `relaxed` for the paper's formula, `plain` for
            the usual order of operations, which overflows in fp16, for comparison.
        attention_pattern: whether a token attends to all earlier ones (`dense`); to the text, to pivots and to a
            window (`three_region`), which needs `fused` attention; or to the text and to what each layer's mask of the
            picture shows (`grid`).
        three_region: settings of that pattern.
        position_table: `learned` for a row of its own for each position, `rows_and_columns` for codes' positions that
            are the sum of a row's and a column's embedding.
        grid: settings of the pattern `grid` and of positions by `rows_and_columns`.
        head: `tied` to the token embedding, or `own` weights with a bias, behind a norm of their own.
        qk_norm: whether each head's queries and keys are RMS-normalised, with learned gains, before their product.
            Beyond the paper: a later way to bound attention scores, to compare with PB-Relax.
        relax_alpha: alpha of the relaxed attention.
        embedding_gradient_scale: a of emb * a + emb.detach() * (1 - a).
        dropout: probability, in training, on embeddings, attention and residual branches.
        layer_norm_epsilon: epsilon of every LayerNorm.

    Raises:
        UsageError: if the numbers do not fit together.

    Paper: 2.3 (shape), 2.4 (stabilisers) and appendix B (three regions).
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    vocabulary_size: int = 58_240
    num_positions: int = 1_089
    mlp_factor: int = 4
    layer_norm: LayerNormPlacement = "sandwich"
    norm_scope: NormScope = "token"
    attention: AttentionKind = "fused"
    attention_pattern: AttentionPattern = "dense"
    three_region: ThreeRegionConfig = field(default_factory=ThreeRegionConfig)
    position_table: PositionTable = "learned"
    grid: GridConfig = field(default_factory=GridConfig)
    head: HeadKind = "tied"
    qk_norm: bool = False
    relax_alpha: float = 32.0
    embedding_gradient_scale: float = 0.1
    dropout: float = 0.0
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in (
            "num_layers",
            "hidden_size",
            "num_heads",
            "vocabulary_size",
            "num_positions",
            "mlp_factor",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
            if getattr(self, name) > MOST_OF_A_SIZE:
                raise UsageError(f"{name} must be at most {MOST_OF_A_SIZE:,}, got {getattr(self, name):,}")
        # From a config file, an unknown choice would silently act like another one.
        choices = {
            "layer_norm": LayerNormPlacement,
            "norm_scope": NormScope,
            "attention": AttentionKind,
            "attention_pattern": AttentionPattern,
            "position_table": PositionTable,
            "head": HeadKind,
        }
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                wanted = " or ".join(get_args(kind))
                raise UsageError(f"{name} must be {wanted}, got {getattr(self, name)!r}")
        if self.hidden_size % self.num_heads:
            raise UsageError(
                f"hidden_size must be a multiple of num_heads, got {self.hidden_size} and {self.num_heads}"
            )
        if self.attention_pattern == "three_region" and self.attention != "fused":
            raise UsageError(
                f"attention_pattern three_region needs attention fused, got {self.attention}: its kernels accumulate "
                "in fp32, which does what the relaxed formula is for"
            )
        if self.attention_pattern == "grid" and len(self.grid.masks) != self.num_layers:
            raise UsageError(
                f"attention_pattern grid needs a mask for each of {self.num_layers} layers, got {len(self.grid.masks)}"
            )
        if self.attention_pattern == "grid" and self.num_positions > MOST_GRID_TOKENS:
            raise UsageError(
                f"num_positions must be at most {MOST_GRID_TOKENS:,} with attention_pattern grid, got "
                f"{self.num_positions}"
            )
        if self.position_table == "rows_and_columns" and self.num_positions < self.grid.stop_position:
            raise UsageError(
                f"num_positions must be at least {self.grid.stop_position}, those up to the grid's last, got "
                f"{self.num_positions}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def num_position_rows(self) -> int:
        """Rows of the position embeddings, those of rows and columns of codes included."""
        if self.position_table == "learned":
            return self.num_positions
        grid = self.grid
        return self.num_positions - grid.num_cells + grid.num_rows + grid.num_columns

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def num_parameters(self) -> int:
        """Parameters of the model, the tied head counted once."""
        d, inner = self.hidden_size, self.mlp_factor * self.hidden_size
        norms = (4 if self.layer_norm == "sandwich" else 2) * 2 * d
        block = 3 * d * d + 3 * d + d * d + d + 2 * d * inner + inner + d + norms
        if self.qk_norm:
            block += 2 * self.head_size
        head = (d + 1) * self.vocabulary_size + 2 * d if self.head == "own" else 0
        return (self.vocabulary_size + self.num_position_rows) * d + self.num_layers * block + 2 * d + head


@dataclass(frozen=True, kw_only=True)
class InitialisationConfig:
    """Initial weights of a new transformer; the defaults are the paper's.

    Args:
        branch_gain: weight of the norms that end the residual branches, with Sandwich-LN.
        positions: initial embeddings of the codes' positions: `random`, or waves over `rows_and_columns`.
    """

    branch_gain: float = 1.0
    positions: PositionStart = "random"

    def __post_init__(self) -> None:
        if self.branch_gain <= 0:
            raise UsageError(f"branch_gain must be greater than 0, got {self.branch_gain}")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What an adapter adds to its base.

    Args:
        rank: of the low-rank maps.
        alpha: low-rank maps are multiplied by alpha / rank.
        maps: linear maps of each block to adapt.
        trains_norms: whether the adapter has all norms of its own.
        num_positions: rows of the adapter's own position table, for a task with other or more positions; None to use
            the base's.
        token_rows: tokens whose embedding and head rows are the adapter's own: separators new to the base.

    Raises:
        UsageError: a number is out of range, or a map is unknown.
    """

    rank: int = 8
    alpha: float = 16.0
    maps: tuple[AdaptedMap, ...] = get_args(AdaptedMap)
    trains_norms: bool = False
    num_positions: int | None = None
    token_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"adapter.rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise UsageError(f"adapter.alpha must be greater than 0, got {self.alpha}")
        unknown = [name for name in self.maps if name not in get_args(AdaptedMap)]
        if unknown or len(set(self.maps)) < len(self.maps):
            raise UsageError(
                f"adapter.maps must be some of {', '.join(get_args(AdaptedMap))}, each once, got {list(self.maps)}"
            )
        if self.num_positions is not None and not (
            type(self.num_positions) is int and self.num_positions > 0
        ):
            raise UsageError(f"adapter.num_positions must be at least 1, got {self.num_positions}")
        if len(set(self.token_rows)) < len(self.token_rows) or min(self.token_rows, default=0) < 0:
            raise UsageError(
                f"adapter.token_rows must be ids of tokens, each once, got {list(self.token_rows)}"
            )

    @property
    def is_empty(self) -> bool:
        """Whether the adapter adds nothing, and its task only has a template of its own."""
        return not (self.maps or self.trains_norms or self.num_positions or self.token_rows)
