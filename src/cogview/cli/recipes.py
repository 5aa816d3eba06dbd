"""Choice of a recipe by the word after the verb; flags override its fields."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cogview.errors import UsageError

Recipe = Callable[[], Any]


def recipes_of(module: str) -> dict[str, Recipe]:
    """Return a module's recipes, its public functions without parameters, by names such as `bundled-gpu`."""
    functions = inspect.getmembers(importlib.import_module(module), inspect.isfunction)
    return {
        name.replace("_", "-"): function
        for name, function in functions
        if function.__module__ == module
        and not name.startswith("_")
        and not inspect.signature(function).parameters
    }


def choose_recipe(verb: str, recipes: Mapping[str, Recipe], arguments: Sequence[str]) -> Recipe:
    """Return the recipe that the first argument names.

    Raises:
        UsageError: the name is missing or unknown.
    """
    known = f"the recipes are {', '.join(recipes)}"
    if not arguments or arguments[0].startswith("-"):
        raise UsageError(f"'cogview {verb}' needs the name of a recipe first; {known}")
    if arguments[0] not in recipes:
        close = difflib.get_close_matches(arguments[0], recipes, n=1)
        hint = f", did you mean '{close[0]}'?" if close else ""
        raise UsageError(f"there is no recipe '{arguments[0]}'{hint}; {known}")
    return recipes[arguments[0]]


def recipes_help(verb: str, recipes: Mapping[str, Recipe]) -> str:
    """Return the help of a verb without a recipe."""
    width = max(map(len, recipes)) + 2
    lines = [f"  {name:<{width}}{_summary(recipe)}" for name, recipe in recipes.items()]
    return "\n".join(
        [
            f"usage: cogview {verb} RECIPE [OPTIONS]",
            "",
            "RECIPE comes first, and is one of:",
            "",
            *lines,
            "",
            f"'cogview {verb} RECIPE --help' shows what a recipe claims and costs, and its options.",
        ]
    )


def _summary(recipe: Recipe) -> str:
    """Return the first line of a recipe's docstring."""
    return (inspect.getdoc(recipe) or "").splitlines()[0]
