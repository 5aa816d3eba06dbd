"""Shapes in signatures are executed: every call in the tests is checked by jaxtyping and beartype."""

from jaxtyping import install_import_hook

install_import_hook("cogview", "beartype.beartype")
