"""A transformer sharded over processes, by FSDP2 and tensor parallelism.

While it is sharded, the rows of `query_key_value` are ordered by head, so that a plain cut shares heads among any
number of processes. `by_head` and `stacked` convert to and from this order.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cogview.errors import UsageError
from cogview.training.config import ComputedPrecision, TrainingConfig
from cogview.training.precision import compiler_failure, master_weights_dtype
from cogview.training.processes import Processes
from cogview.training.progress import say
from cogview.transformer.attention import CausalSelfAttention, rows_by_head
from cogview.transformer.block import SandwichBlock
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer


def parallelise(
    module: nn.Module, config: TrainingConfig, processes: Processes, precision: ComputedPrecision = "float32"
) -> None:
    """Shard a module over the processes in place, and apply activation checkpointing.

    Tensor parallelism cuts the maps into a branch by output and those out of it by input, so each branch communicates
    once in each direction. Embeddings, the tied head and the norms are replicated. FSDP2 then shards every parameter
    over the processes with other rows, and gathers it block by block.

    Args:
        module: whole, with the same weights in every process.
        config: how to shard it.
        processes: to shard over.
        precision: with an `_o2` precision, gathered weights are rounded, and gradients summed in float32.

    Raises:
        UsageError: the module cannot be sharded so.
    """
    check_module(module, config, processes)
    if not isinstance(module, Transformer):
        return
    blocks = [block for block in module.modules() if isinstance(block, SandwichBlock)]
    for block in blocks:
        block.checkpointing = config.activation_checkpointing
    if processes.mesh is None:
        return
    for name, order in _row_orders(module).items():
        parameter = module.get_parameter(name)
        parameter.data = parameter.data[order]
    shards = processes.mesh["shard"]
    if processes.mesh["replica"].size() > 1:
        shards = processes.mesh["replica", "shard"]
    policy = MixedPrecisionPolicy()
    dtype = master_weights_dtype(precision)
    if dtype is not None:
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    compiles = config.compile and compiler_failure(processes.device) is None
    if config.compile and not compiles and processes.is_first:
        say("Not compiling, so slower: torch.compile does not work here.")
    for block in blocks:
        block.attention.by_head = True
        block.to(processes.device)  # one at a time, since all may not fit
        if processes.tensor_parallel > 1:
            plan = {
                "attention.query_key_value": ColwiseParallel(),
                "attention.output": RowwiseParallel(),
                "mlp.inner": ColwiseParallel(),
                "mlp.output": RowwiseParallel(),
            }
            parallelize_module(block, processes.mesh["tensor"], plan, src_data_rank=None)
        if compiles:
            block.compile(dynamic=False)
        fully_shard(block, mesh=shards, mp_policy=policy)
    module.to(processes.device)
    # The rest, mainly the token table, stays gathered after the blocks: it is the head too.
    fully_shard(module, mesh=shards, mp_policy=policy, reshard_after_forward=False)
    register_fsdp_forward_method(module, "hidden_states")


def check_module(module: nn.Module, config: TrainingConfig, processes: Processes) -> None:
    """Refuse what `parallelise` cannot do.

    Raises:
        UsageError: an option does not suit the module.
    """
    if isinstance(module, Transformer):
        check_heads(module.config, processes.tensor_parallel)
        return
    if config.activation_checkpointing:
        raise UsageError("activation_checkpointing is for transformers: leave it off.")
    if processes.mesh is not None:
        raise UsageError(
            f"{processes.ranks.num_ranks} processes were started, but an image tokenizer is trained by one: start "
            "it without torchrun."
        )


def check_heads(config: TransformerConfig, tensor_parallel: int) -> None:
    """Refuse a number of tensor-parallel processes that cannot share the heads.

    Raises:
        UsageError: an option does not suit the transformer.
    """
    if config.num_heads % tensor_parallel:
        raise UsageError(
            f"tensor_parallel {tensor_parallel} does not divide the {config.num_heads} heads: take a divisor."
        )
    if config.qk_norm and tensor_parallel > 1:
        raise UsageError(
            "qk_norm does not go with tensor_parallel, whose processes would learn gains apart: leave one of them off."
        )


def is_spread(module: nn.Module) -> bool:
    """Return whether a module is sharded."""
    return isinstance(module, FSDPModule)


def forget_gathered(module: nn.Module) -> None:
    """Drop weights left gathered by a forward pass without a backward pass, since they may change."""
    if isinstance(module, FSDPModule):
        module.reshard()


def by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return parameters grouped by device mesh, as fused operations require."""
    groups: dict[object, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        groups[parameter.device_mesh if isinstance(parameter, DTensor) else None].append(parameter)
    return list(groups.values())


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Float[Tensor, ""]:
    """Clip gradients to a Euclidean norm over all processes; return the norm before clipping."""
    groups = [[p for p in group if p.grad is not None] for group in by_mesh(parameters)]
    norms = [get_total_norm([p.grad for p in group if p.grad is not None]) for group in groups if group]
    norm = norms[0] if len(norms) == 1 else torch.stack([whole(each) for each in norms]).norm()
    norm = whole(norm)
    for group in groups:
        clip_grads_with_norm_(group, max_norm, norm)
    return norm


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one; all processes that hold parts must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, sharded like another."""
    if not isinstance(like, DTensor):
        return tensor
    (chunk,) = like.__create_chunk_list__()  # type: ignore[no-untyped-call]
    index = tuple(slice(start, start + size) for start, size in zip(chunk.offsets, chunk.sizes, strict=True))
    return tensor[index]


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_whole(module: nn.Module, into: nn.Module | None) -> None:
    """Copy the weights of a sharded module, one at a time, into a whole one.

    Args:
        module: sharded; all processes call this.
        into: gets the weights; None in processes that do not need them.
    """
    orders = _row_orders(module)
    for name, parameter in module.named_parameters():
        tensor = whole(parameter)
        if into is not None:
            if name in orders:
                tensor = tensor[orders[name].argsort().to(tensor.device)]
            into.get_parameter(name).copy_(tensor)


def by_head(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors, named `PARAMETER` or `.../PARAMETER`, with rows in a sharded transformer's order."""
    orders = _row_orders(module)
    return dict(_reordered(tensors, orders))


def stacked(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `by_head`."""
    orders = {name: order.argsort() for name, order in _row_orders(module).items()}
    return dict(_reordered(tensors, orders))


def _reordered(tensors: Mapping[str, Tensor], orders: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        order = orders.get(name.rpartition("/")[2])
        yield name, tensor if order is None or tensor.ndim == 0 else tensor[order]


def _row_orders(module: nn.Module) -> dict[str, Int64[Tensor, "r"]]:
    """Return the parameters with another row order when sharded, with that order."""
    return {
        f"{name}.query_key_value.{kind}": rows_by_head(child.config)
        for name, child in module.named_modules()
        if isinstance(child, CausalSelfAttention)
        for kind in ("weight", "bias")
    }
