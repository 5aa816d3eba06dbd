"""The `cogview` command: finds the verb, and turns errors into one line and an exit code.

A verb's module is imported only when the verb is called, and torch only when the verb does its work, so that help
answers at once.
"""

import contextlib
import difflib
import functools
import gc
import importlib
import inspect
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn, TextIO

from cogview.errors import CogViewError, UsageError, printable

# The words that name a verb -> (its module and function, what it does). The function is `run` unless named.
VERBS = {
    "generate": ("pictures:generate", "draw pictures for texts"),
    "caption": ("pictures:caption", "write captions of pictures"),
    "rank": ("pictures:rank", "order pictures by how well a text fits them"),
    "upscale": ("pictures:upscale", "draw pictures again at two or four times the model's size"),
    "words": ("words", "list what a model knows: things, colours, places, styles"),
    "serve": ("serve", "serve an images API, and a page to draw with"),
    "train text-tokenizer": ("train:text_tokenizer", "learn the pieces that texts are cut into"),
    "train image-tokenizer": ("train:image_tokenizer", "learn the codes that pictures are made of"),
    "train vqgan": ("train:vqgan", "learn the codes of one domain, against a discriminator"),
    "train decoder": ("train:decoder", "learn to draw an image tokenizer's codes sharper, and larger"),
    "train text-to-image": ("train:text_to_image", "learn to write codes after pieces"),
    "train super-resolution": (
        "train:super_resolution",
        "learn to draw a picture at twice its rows and columns",
    ),
    "train style": ("train:style", "learn a style from some pictures, beside a model"),
    "train captioning": ("train:captioning", "learn to write captions of pictures"),
    "tokenize": ("data:tokenize", "turn pictures and captions into codes and pieces for training"),
    "evaluate tokenizer": ("evaluate:tokenizer", "measure how well pictures survive an image tokenizer"),
    "evaluate questionnaire": ("evaluate:questionnaire", "ask people which system's pictures are better"),
    "evaluate answers": ("evaluate:answers", "tell what people answered to a questionnaire"),
    "evaluate attention": ("evaluate:attention", "draw what a model attends to in text and picture"),
    "evaluate text-to-image": (
        "evaluate:text_to_image",
        "measure drawn pictures beside real ones: the paper's table 1 and figure 9",
    ),
    "evaluate composition": (
        "evaluate:composition",
        "count how often pictures of scenes show what their captions ask for",
    ),
    "evaluate model": ("evaluate:model", "make the report of a checkpoint: samples, figures, loss curves"),
    "data build": ("data:build", "make the default data set, or another of the recipes'"),
    "data check": ("data:check", "look through a folder of pictures and captions"),
    "convert": ("data:convert", "make others' checkpoints ours, and back"),
    "plan": ("plan", "tell what a run will need before it is launched"),
    "doctor": ("doctor", "say what is installed here and what works"),
}

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: the words after `cogview`; those of this process by default.

    Returns:
        The exit code: 0 done, 1 failed, 2 the request was impossible, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show Chinese must not keep a picture from being drawn.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    # On Linux, large pages make training on CPU faster; torch reads this when it is imported.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        # Else, beside a process of higher priority, PyTorch's threads spin for each other without end: a picture took
        # over 45 s, not 6 (torch 2.13, libgomp; notes of a trial). Beside an equal one it does not matter:
        # `bench/busy_core.py`.
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # Imports make many objects that stay; looking through them for garbage took 0.1 s of a start.
    gc.set_threshold(50_000)
    # What ends a process politely, `timeout` or a job's scheduler, must leave nothing half-written either.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        _call_verb(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        print(f"cogview: {printable(str(error)) or 'interrupted'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough. Python would complain at exit when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if os.environ.get("COGVIEW_DEBUG"):
            traceback.print_exception(error)
        print(f"cogview: error: {printable(_explanation(error))}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
    finally:
        if arguments is None:
            gc.freeze()  # the process ends: what it imported need not be looked through for garbage
    return 0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Treat a request to end as Ctrl-C."""
    raise KeyboardInterrupt("asked to end")


def _parse_and_run(module: ModuleType, name: str, verb: str, arguments: Sequence[str]) -> None:
    """Call a verb's function with what the arguments say: its signature names the flags, its docstring is their help.

    Args:
        module: holds the function. `RECIPES` there is the module of the recipes that the first argument chooses from,
            or such modules by the names of functions; the function gets the chosen one as `recipe`.
        name: of the function; parameters before `/` are positional.
        verb: its name on the command line.
        arguments: the words after the verb.
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
    _parse(function, f"cogview {verb}", description.split("\nArgs:")[0].strip(), arguments)()


def _parse(
    function: Callable[..., None], program: str, description: str, arguments: Sequence[str]
) -> Callable[[], None]:
    """Return the function with the arguments that the words give it, ready to be called.

    Raises:
        UsageError: a flag does not exist, lacks its value or has an impossible one.
        SystemExit: help was asked for, and has been printed.
    """
    import tyro

    @functools.wraps(function)
    def bound(*values: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(function, *values, **named)

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                bound,
                prog=program,
                description=description,
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_without_box(complaint.getvalue())) from None


def _without_box(message: str) -> str:
    """Return in one line what tyro drew a box around."""
    lines = [line.strip("│ ") for line in message.splitlines() if line.startswith("│")]
    parts = " ".join(";" if line and not line.strip("─") else line for line in lines)
    return " ".join((parts or message).split()).replace(" ;", ";")


def _call_verb(arguments: list[str]) -> None:
    """Import and run the verb that the first words name, or print what there is."""
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
            found = importlib.import_module(f"cogview.cli.{module}")
            _parse_and_run(found, function or "run", verb, arguments[num_words:])
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
    """Return a hint at the verb that was probably meant, or nothing."""
    words = [*VERBS, *dict.fromkeys(verb.split()[0] for verb in VERBS if " " in verb)]
    close = difflib.get_close_matches(wanted, words, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _help(prefix: str) -> str:
    """Return the list of the verbs whose command line starts with `prefix`."""
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
    """Return in one line what was wrong and what to do."""
    message = " ".join(str(error).split())
    name = type(error).__name__
    if isinstance(error, CogViewError):
        return message
    if (
        isinstance(error, MemoryError) or name == "OutOfMemoryError"
    ):  # the latter is torch's, which may not be there
        return f"out of memory ({message or name}); do less at once: fewer candidates, a smaller batch"
    if "can't allocate memory" in message:  # torch's error on CPU has no class of its own
        return f"out of memory ({message}); do less at once: fewer candidates, a smaller batch"
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
    """Print a warning of ours in one line; those of libraries are for developers."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        print(f"cogview: warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)
    elif os.environ.get("COGVIEW_DEBUG"):
        print(warnings.formatwarning(message, category, filename, lineno, line), file=sys.stderr, end="")
