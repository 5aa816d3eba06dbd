"""Markdown table of the composition score."""

from collections.abc import Mapping
from typing import Any

_LANGUAGES = {"zh": "Chinese", "en": "English"}
_CHOICES = {"first": "first candidate", "random": "a random candidate", "CapLoss": "best by CapLoss"}


def composition_table(result: Mapping[str, Any]) -> list[str]:
    """Format a composition result as lines of Markdown.

    Args:
        result: JSON of `cogview evaluate composition`.
    """
    return [*_verdict_on_the_checker(result["checker"]), "", *_figures(result)]


def _verdict_on_the_checker(checker: Mapping[str, Any]) -> list[str]:
    pictures, redrawn = (checker[name]["all"]["value"] for name in ("pictures", "redrawn"))
    shares = (
        f"all right on {pictures:.1%} of the real pictures and on {redrawn:.1%} of them as the image tokenizer redraws "
        f"them ({checker['least_right']:.0%} wanted); under others' captions on "
        f"{checker['redrawn_shuffled']['all']:.1%}, where chance is {checker['chance']['all']:.1%}"
    )
    if checker["is_valid"]:
        return [f"The checker is valid: {shares}."]
    return [f"**THE CHECKER IS NOT VALID, so the figures say little**: {shares}."]


def _figures(result: Mapping[str, Any]) -> list[str]:
    request, checker, figures = result["request"], result["checker"], result["figures"]
    names = list(figures["first"])
    lines = [
        f"{request['num_captions']:,} captions of {result['split']} x {request['candidates']} candidates, "
        f"{result['model']}, seed {request['seed']}, temperature {request['temperature']:g}, top-p "
        f"{request['top_p']:g}, guidance {request['guidance']:g}; shares that are right, and where they lie with 95 %",
        "",
        f"| | {' | '.join(name.replace('_', ' ') for name in names)} |",
        "|---|" + "---|" * len(names),
        f"| captions that ask for it | {' | '.join(str(figures['first'][name]['num']) for name in names)} |",
    ]
    rows = {_CHOICES[choice]: shares for choice, shares in figures.items()}
    rows |= {
        f"{_CHOICES[choice]}, {_LANGUAGES[language]} captions": shares
        for language, of_language in result["languages"].items()
        for choice, shares in of_language.items()
    }
    rows |= {"real pictures": checker["pictures"], "real pictures, redrawn": checker["redrawn"]}
    for what, shares in rows.items():
        lines.append(f"| {what} | {' | '.join(_formatted(shares[name]) for name in names)} |")
    for what, key in (
        ("real pictures, others' captions", "pictures_shuffled"),
        ("real pictures, redrawn, others' captions", "redrawn_shuffled"),
        ("chance under others' captions", "chance"),
    ):
        values = ("" if checker[key][name] is None else f"{checker[key][name]:.1%}" for name in names)
        lines.append(f"| {what} | {' | '.join(values)} |")
    return lines


def _formatted(share: Mapping[str, float | None]) -> str:
    if share["value"] is None:
        return ""
    interval = "" if share["low"] is None else f" ({share['low']:.1%} to {share['high']:.1%})"
    return f"{share['value']:.1%}{interval}"
