"""Shapes in signatures are executed: every call in the tests is checked by jaxtyping and beartype."""

import os

# Threads of one test that wait for each other by counting would take the cores from the tests beside it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import torch
from hypothesis import settings

from checked_calls import check_calls

check_calls("cogview")

# Tiny tensors gain nothing from threads, which wait for each other on a busy machine, and equal bits need an equal
# number of them. Tests of several threads ask for them.
torch.set_num_threads(1)

settings.register_profile("few", max_examples=25, deadline=None)
settings.load_profile("few")
