"""The bytes that are counted are PyTorch's own tracker's, and each kind's are what they must be."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from cogview.planning.tracking import MemoryTracker

WIDTH, ROWS = 256, 1024


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    module(torch.ones(ROWS, WIDTH)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))


def test_the_peak_is_that_of_pytorchs_own_tracker() -> None:
    with FakeTensorMode():
        module = network()
        optimizer = torch.optim.AdamW(module.parameters(), fused=True)
        theirs = MemTracker()
        theirs.track_external(module, optimizer)
        with theirs:
            step(module, optimizer)
            theirs.reset_mod_stats()
            step(module, optimizer)
        (snapshot,) = theirs.get_tracker_snapshot("peak").values()
    with FakeTensorMode(), MemoryTracker() as ours:
        module = network()
        optimizer = torch.optim.AdamW(module.parameters(), fused=True)
        step(module, optimizer)
        ours.forget_peak()
        step(module, optimizer)
    assert sum(ours.peak.values()) == snapshot["Total"]


def test_kinds_are_told_apart() -> None:
    num_parameters = sum(parameter.numel() for parameter in network().parameters())
    with FakeTensorMode(), MemoryTracker({"weights": 0.5}) as tracker:
        module = network()
        tracker.tag("weights", module.parameters())
        x = torch.ones(ROWS, WIDTH)
        tracker.tag("transient", [x])
        for _ in range(2):
            tracker.forget_peak()
            with tracker.forward_pass(), torch.autocast("cpu", dtype=torch.bfloat16):
                loss = module(x).float().square().sum()
    assert loss.requires_grad
    assert tracker.peak["weights"] == 0.5 * 4 * num_parameters
    # The second map keeps its rounded weight, to give the first one its gradient; nothing asks the first one for any.
    assert tracker.peak["weight_copies"] == 2 * 2 * WIDTH * WIDTH
    # Rounded x, what goes into and comes out of the GELU (twice as wide), and the float32 result, at least.
    assert tracker.peak["activations"] >= ROWS * WIDTH * (2 + 4 + 4 + 4)
    assert tracker.peak["gradients"] == tracker.peak["optimizer"] == 0


def test_the_truth_of_a_value_is_yes() -> None:
    with FakeTensorMode(), MemoryTracker():
        assert bool((torch.zeros(3) > 0).any())
