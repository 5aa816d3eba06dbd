"""The `cogview` command: dispatches to a verb, and reports errors as one line and an exit code.

A verb's module is imported when the verb is called, and torch when it does its work, so that help is fast.
"""

import difflib
import functools
import gc
import importlib
import inspect
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn, TextIO

from cogview.errors import CogViewError, UsageError, printable

# Verb -> (module and function, summary). The function is `run` unless named.
VERBS = {
    "generate": ("pictures:generate", "draw pictures for texts"),
    "caption": ("pictures:caption", "write captions of pictures"),
    "rank": ("pictures:rank", "rank pictures by how well a text fits them"),
    "upscale": ("pictures:upscale", "draw pictures at two or four times the model's size"),
    "words": ("words", "list what a model knows: things, colours, places, styles"),
    "serve": ("serve", "serve an images API and a web page"),
    "train text-tokenizer": ("train:text_tokenizer", "train a text tokenizer"),
    "train image-tokenizer": ("train:image_tokenizer", "train an image tokenizer (VQ-VAE)"),
    "train vqgan": ("train:vqgan", "train a VQGAN image tokenizer for one domain"),
    "train decoder": ("train:decoder", "train a sharper or larger decoder for an image tokenizer"),
    "train text-to-image": ("train:text_to_image", "train a transformer to draw pictures from texts"),
    "train super-resolution": ("train:super_resolution", "train an adapter for twice the rows and columns"),
    "train style": ("train:style", "train an adapter for a style, from some pictures"),
    "train captioning": ("train:captioning", "train an adapter that captions pictures"),
    "tokenize": ("data:tokenize", "encode pictures and captions as codes and pieces for training"),
    "evaluate tokenizer": ("evaluate:tokenizer", "measure the reconstructions of an image tokenizer"),
    "evaluate questionnaire": ("evaluate:questionnaire", "ask people which system's pictures are better"),
    "evaluate answers": ("evaluate:answers", "summarize the answers to a questionnaire"),
    "evaluate attention": ("evaluate:attention", "plot what a model attends to in text and picture"),
    "evaluate text-to-image": (
        "evaluate:text_to_image",
        "compare drawn pictures with real ones: the paper's table 1 and figure 9",
    ),
    "evaluate composition": (
        "evaluate:composition",
        "count how often pictures of scenes show what their captions ask for",
    ),
    "evaluate model": ("evaluate:model", "write a report on a checkpoint: samples, figures, loss curves"),
    "data build": ("data_build", "make the default data set, or that of another recipe"),
    "data check": ("data:check", "check a folder of pictures and captions"),
    "convert": ("data:convert", "convert other projects' checkpoints"),
    "plan": ("plan", "estimate memory and time of a run"),
    "doctor": ("doctor", "show what is installed and what works"),
}

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: after `cogview`; those of this process by default.

    Returns:
        The exit code: 0 done, 1 failed, 2 invalid request, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # Chinese text must not fail on a terminal that cannot show it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    # Huge pages make training on Linux CPUs faster; torch reads this at import.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        # Beside a process of higher priority, PyTorch's threads otherwise spin for each other: a picture took over
        # 45 s, not 6 (torch 2.13, libgomp). Beside one of equal priority it makes no difference: `bench/busy_core.py`.
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # Imports create many lasting objects; scanning them for garbage took 0.1 s of a start.
    gc.set_threshold(50_000)
    # SIGTERM, from `timeout` or a job scheduler, must leave nothing half-written either.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        _call_verb(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        print(f"cogview: {printable(str(error)) or 'interrupted'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has exited. Prevents an error when Python flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if os.environ.get("COGVIEW_DEBUG"):
            traceback.print_exception(error)
        print(f"cogview: error: {printable(_explanation(error))}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
    finally:
        if arguments is None:
            gc.freeze()  # saves a garbage collection at exit
    return 0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM like Ctrl-C."""
    raise KeyboardInterrupt("asked to end")


def _parse_and_run(module: ModuleType, name: str, verb: str, arguments: Sequence[str]) -> None:
    """Call a verb's function with parsed arguments: its signature defines the flags, its docstring their help.

    Args:
        module: with the function. Its `RECIPES` is a module of recipes, or such modules by function name; the first
            argument chooses a recipe, which the function gets as `recipe`.
        name: of the function; parameters before `/` are positional.
        verb: name on the command line.
        arguments: after the verb.
    """
    function = getattr(module, name)
    description = inspect.getdoc(function) or ""
    recipes_module = getattr(module, "RECIPES", None)
    if isinstance(recipes_module, dict):
        recipes_module = recipes_module.get(name)
    if recipes_module is not None:
        from cogview.cli.recipes import choose_recipe, recipes_help, recipes_of

        recipes = recipes_of(recipes_module)
        if arguments and arguments[0] in ("-h", "--help"):
            print(recipes_help(verb, recipes))
            return
        recipe = choose_recipe(verb, recipes, arguments)
        function = functools.partial(function, recipe=recipe())
        description = inspect.getdoc(recipe) or ""
        verb, arguments = f"{verb} {arguments[0]}", arguments[1:]
    from cogview.cli.parsing import call_with_flags

    call_with_flags(function, f"cogview {verb}", description.split("\nArgs:")[0].strip(), arguments)


def _call_verb(arguments: list[str]) -> None:
    """Import and run the verb that the first arguments name, or print the list of verbs."""
    if arguments in ([], ["-h"], ["--help"], ["help"]):
        print(_help("cogview"))
        if not arguments:
            raise UsageError("no verb was given: choose one of the above")
        return
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"cogview {version('cogview')}")
        return
    for num_words in (1, 2):
        verb = " ".join(arguments[:num_words])
        if verb in VERBS:
            module, _, function = VERBS[verb][0].partition(":")
            imported = importlib.import_module(f"cogview.cli.{module}")
            _parse_and_run(imported, function or "run", verb, arguments[num_words:])
            return
    group = [verb for verb in VERBS if verb.startswith(arguments[0] + " ")]
    if group and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        print(_help(f"cogview {arguments[0]}"))
        if len(arguments) == 1:
            raise UsageError(f"'cogview {arguments[0]}' needs one more word: choose one of the above")
        return
    wanted = " ".join(arguments[: 2 if group else 1])
    raise UsageError(f"there is no verb '{wanted}'{_closest(wanted)}; 'cogview --help' lists them all")


def _closest(wanted: str) -> str:
    """Return a hint at a similar verb, or nothing."""
    words = [*VERBS, *dict.fromkeys(verb.split()[0] for verb in VERBS if " " in verb)]
    close = difflib.get_close_matches(wanted, words, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _help(prefix: str) -> str:
    """Return help with the verbs whose command line starts with `prefix`."""
    verbs = {f"cogview {verb}": summary for verb, (_, summary) in VERBS.items()}
    width = max(map(len, verbs)) + 2
    lines = [f"  {verb:<{width}}{summary}" for verb, summary in verbs.items() if verb.startswith(prefix)]
    return "\n".join(
        [
            f"usage: {prefix} VERB ...",
            "",
            "Pictures from words, by an autoregressive transformer.",
            "",
            *lines,
            "",
            "'cogview VERB --help' shows a verb's options. Results go to stdout, progress and errors to stderr.",
        ]
    )


def _explanation(error: Exception) -> str:
    """Describe an error in one line."""
    message = " ".join(str(error).split())
    name = type(error).__name__
    if isinstance(error, CogViewError):
        return message
    # torch's error has a class of its own on a GPU only, and torch may not be imported.
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in message:
        return f"out of memory ({message or name}); do less at once: fewer candidates, a smaller batch"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{name}: {message} (this is a bug; COGVIEW_DEBUG=1 shows where)"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our own warnings in one line; those of libraries only with COGVIEW_DEBUG."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        print(f"cogview: warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)
    elif os.environ.get("COGVIEW_DEBUG"):
        print(warnings.formatwarning(message, category, filename, lineno, line), file=sys.stderr, end="")
