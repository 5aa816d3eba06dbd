"""Try the Triton kernels of three-region attention without a GPU.

`interpreted` prints how far outputs and gradients are from the plain form's, in a process where Triton interprets all
kernels. `compiled` prints the names of those that compile for an H100.
"""

import inspect
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cogview.transformer import three_region_triton
from cogview.transformer.config import ThreeRegionConfig
from cogview.transformer.three_region import draw_regions, masked_dense_attention

# Block of places, blocks of a window, slots, places, channels.
CASES = (
    (16, 2, 24, 70, 16),  # the last tile is cut
    (48, 1, 30, 100, 32),  # tiles are parts of a block
    (16, 1, 13, 40, 16),  # a text fills the slots
)
BFLOAT16 = {"query", "key", "value", "gradient", "attended_out", "of_query", "of_key", "of_value"}
INT64 = {"places", "num_text", "num_visible", "first_block", "slot_of"}
FLOAT32 = {"log_weight", "log_sum_out", "log_sum_in", "delta_in", "of_slot_keys", "of_slot_values"}


def interpret(block_tokens: int, window: int, num_slots: int, num_tokens: int, num_channels: int) -> float:
    """Return the largest difference of the output and the gradients."""
    config = ThreeRegionConfig(
        block_tokens=block_tokens,
        key_window_blocks=window,
        num_text_and_pivot_tokens=num_slots,
        image_start_token=1,
        num_image_tokens=num_tokens,
    )
    [regions] = draw_regions(torch.tensor([5, 13]), torch.tensor([7, 9]), num_tokens, 1, config)
    torch.manual_seed(0)
    # As a fused projection lays them out.
    projected = torch.randn(2, num_tokens, 3, 1, num_channels, requires_grad=True)
    gradient = torch.randn(2, 1, num_tokens, num_channels)
    made, kept = [], {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() / gradient.nbytes
        return tensor

    for attention in (three_region_triton.gathered_attention, masked_dense_attention):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            attended = attention(*projected.permute(2, 0, 3, 1, 4), regions, config)
        if not made:  # queries, keys and values in one, and what was attended to; places and sums are smaller
            assert sorted(round(each) for each in kept.values() if each >= 1) == [1, 3]
        made.append((attended, *torch.autograd.grad(attended, projected, gradient)))
    return max((ours - plain).abs().max().item() for ours, plain in zip(*made, strict=True))


def type_of(name: str, constants: dict[str, int]) -> str:
    """Return the type of a kernel's parameter."""
    for names, kind in ((BFLOAT16, "*bf16"), (INT64, "*i64"), (FLOAT32, "*fp32"), (constants, "constexpr")):
        if name in names:
            return kind
    return "fp32" if name == "scale" else "i32"


def compile_kernel(name: str) -> None:
    """Compile a kernel for 64 channels in bfloat16."""
    kernel = getattr(three_region_triton, name)
    tiles = three_region_triton.TILES["forward" if name == "_forward_kernel" else "backward"]
    constants = {"block_tokens": 128, "window_blocks": 6, "size": 64}
    constants |= {"queries": tiles.queries, "keys": tiles.keys}
    signature = {each: type_of(each, constants) for each in inspect.signature(kernel.fn).parameters}
    options = {"num_warps": tiles.num_warps, "num_stages": tiles.num_stages}
    source = ASTSource(kernel, signature, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]


def main() -> None:
    """Do what the argument says."""
    if sys.argv[1] == "interpreted":
        for case in CASES:
            print(interpret(*case))
    else:
        for name in ("_forward_kernel", "_query_kernel", "_slot_kernel", "_place_kernel"):
            compile_kernel(name)
            print(name)


if __name__ == "__main__":
    main()
