"""Shapes in signatures are executed: every call in the tests is checked by jaxtyping and beartype."""

import torch
from jaxtyping import install_import_hook

install_import_hook("cogview", "beartype.beartype")

# Tiny tensors gain nothing from threads, which wait for each other on a busy machine, and equal bits need an equal
# number of them. Tests of several threads ask for them.
torch.set_num_threads(1)
