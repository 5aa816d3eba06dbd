"""Flags from the signature of a verb: parsing, help in groups, and errors that name flags."""

import contextlib
import dataclasses
import functools
import inspect
import io
import re
import sys
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from cogview.errors import UsageError

_NO_VALUES = {
    r"no type matching (.+?) could be instantiated from \[(.*?)\]\. Got errors: .*": r"wanted \1, got \2",
    r"invalid literal for int\(\) with base 10: (.*)": r"wanted INT, got \1",
    r"could not convert string to float: (.*)": r"wanted FLOAT, got \1",
    r"(?<=\()'None', |, 'None'(?=[,)])": "",  # a choice of tyro's that is refused
}
"""What tyro says of values that cannot be parsed, and what is said instead."""


def call_with_flags(
    function: Callable[..., None], program: str, description: str, arguments: Sequence[str]
) -> None:
    """Call a function with parsed arguments.

    Args:
        function: its signature defines the flags, its docstring their help.
        program: name in the help.
        description: the help's first lines.
        arguments: of the command line.

    Raises:
        UsageError: a flag is unknown, its value is missing or invalid, or the function refuses it; fields are named as
            flags.
        SystemExit: after printing help.
    """
    given = [word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")]
    for flag, num in Counter(given).items():
        if num > 1:  # a script's own flags come first, and its user's override them
            print(f"cogview: {flag} is given {num} times: the last one counts", file=sys.stderr)
    try:
        _parse(function, program, description, arguments)()
    except UsageError as error:
        error.args = (_with_flags(str(error), _flags_of(function) | _fields_of(given)),)
        raise


def _parse(
    function: Callable[..., None], program: str, description: str, arguments: Sequence[str]
) -> Callable[[], None]:
    """Bind a function to parsed arguments."""

    def bind(*values: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(function, *values, **named)

    bound: Any = inspect.unwrap(bind)  # tyro looks below decorators, too
    parameters = inspect.signature(function).parameters
    bound.__signature__ = inspect.signature(function)
    # A parameter's help in one line: the terminal breaks it where it wants.
    bound.__doc__ = re.sub(r"\n {8}", " ", inspect.getdoc(_unbound(function)) or "")
    bound.__annotations__ = {
        name: _shown_type(kind, parameters[name].default) if name in parameters else kind
        for name, kind in _types_of(function).items()
    }
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(
                bound,
                prog=program,
                description=description,
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff,),
                registry=_registry(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_without_box(stderr.getvalue())) from None


def _unbound(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function of a partial one."""
    return _unbound(function.func) if isinstance(function, functools.partial) else function


def _types_of(function: Callable[..., None]) -> dict[str, Any]:
    """Return the types of a function's parameters."""
    hints = get_type_hints(_unbound(function), include_extras=True)
    return {name: kind for name, kind in hints.items() if name != "return"}


def _without_box(message: str) -> str:
    """Join tyro's boxed message in one line, without the help of the flag that is wrong."""
    lines = message.splitlines()
    # Where the terminal has no such characters, the box is a title, a rule and indented lines.
    boxed = [line for line in lines if line.startswith("│")] or lines[2:]
    parts = [[""]]
    for line in (line.strip("│ ") for line in boxed):
        if line and not line.strip("─-"):
            parts.append([])
        else:
            parts[-1].append(line)
    first, *others = (" ".join(" ".join(part).split()) for part in parts)
    for pattern, plain in _NO_VALUES.items():
        first = re.sub(pattern, plain, first)
    return "; ".join([first, *(part for part in others if not part.startswith("Argument helptext:"))])


class _Group:
    """Flags with a title of their own in the help; parsed as a mapping."""

    fields: tuple[StructFieldSpec, ...]


def _registry() -> ConstructorRegistry:
    """Return rules that group the flags of options and show only defaults that say something."""
    registry, entered = ConstructorRegistry(), set[type]()

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if isinstance(info.type, type) and issubclass(info.type, _Group):
            return StructConstructorSpec(instantiate=dict, fields=info.type.fields)
        if not dataclasses.is_dataclass(info.type) or info.type in entered:
            return None
        entered.add(info.type)
        try:
            spec = ConstructorRegistry.get_struct_spec(info)  # tyro's own
        finally:
            entered.remove(info.type)
        return _grouped(info.type, spec) if isinstance(spec, StructConstructorSpec) else None

    return registry


def _grouped(options: type, spec: StructConstructorSpec) -> StructConstructorSpec:
    """Move the fields of base classes with a GROUP into groups of that title."""
    title_of = {
        field.name: vars(base)["GROUP"]
        for base in options.__mro__
        if "GROUP" in vars(base)
        for field in dataclasses.fields(base)
    }
    fields: list[StructFieldSpec] = []
    members: dict[str, list[StructFieldSpec]] = {}
    for field in spec.fields:
        title = title_of.get(field.name)
        shown = _shown_type(field.type, field.default, False if title else None)
        field = dataclasses.replace(field, type=shown)
        members.setdefault(title, []).append(field) if title else fields.append(field)
    for title, own in members.items():
        group = type(title, (_Group,), {"fields": tuple(own)})
        fields.append(StructFieldSpec(name=title, type=group, default=tyro.MISSING_NONPROP, helptext=""))

    def instantiate(**values: Any) -> Any:
        for title in members:
            values |= values.pop(title)
        return spec.instantiate(**values)

    return StructConstructorSpec(instantiate=instantiate, fields=tuple(fields))


def _shown_type(kind: Any, default: Any, prefix_name: bool | None = None) -> Any:
    """Annotate the type of a field or parameter for a help that says no more than is needed.

    Args:
        kind: the type; unchanged if it holds settings.
        default: of the field.
        prefix_name: False leaves out the name of a group in the flag.
    """
    if any(map(dataclasses.is_dataclass, (_bare(kind), *get_args(_bare(kind))))):
        return kind
    if get_origin(kind) is types.UnionType:
        kind = Union[get_args(kind)]  # noqa: UP007 - for `X | None`, tyro imports one more library
    if default is None:
        kind = tyro.conf.DisallowNone[kind]
    return Annotated[kind, tyro.conf.arg(prefix_name=prefix_name, help_behavior_hint=_hint)]


def _bare(kind: Any) -> Any:
    """Return a type without annotations."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _hint(default: str) -> str:
    """Return what the help says of a default; what None means is in the help itself."""
    if default == "True":
        return "(on by default; this flag turns it off)"
    return "" if default in ("False", "None", "") else f"(default: {default})"


def _fields_of(flags: Sequence[str]) -> dict[str, str]:
    """Return given flags by field: with and without the names of the settings that hold it."""
    paths = {flag.removeprefix("--").replace("-", "_"): flag for flag in flags}
    return {path.rpartition(".")[2]: flag for path, flag in paths.items()} | paths


def _flags_of(function: Callable[..., None]) -> dict[str, str]:
    """Return the flags without a prefix, by parameter or field of options."""
    flags: dict[str, str] = {}
    for parameter, of in _types_of(function).items():
        options, kinds = _bare(of), {parameter: of}
        if dataclasses.is_dataclass(options):
            hints = get_type_hints(options, include_extras=True)
            kinds = {field.name: hints[field.name] for field in dataclasses.fields(options)}
        for name, kind in kinds.items():
            renamed = [each.name for each in getattr(kind, "__metadata__", ()) if getattr(each, "name", None)]
            flags[name] = "--" + (renamed or [name])[0].replace("_", "-")
    return flags


def _with_flags(message: str, flag_of: Mapping[str, str]) -> str:
    """Name fields in a message as flags.

    A name that is an English word counts at the beginning only, before "must" or "is", and before "=" or "was".

    Args:
        message: of an error.
        flag_of: flags by field.
    """
    if not flag_of:
        return message
    names = "|".join(map(re.escape, sorted(flag_of, key=len, reverse=True)))

    def flag(match: re.Match[str]) -> str:
        name, after = match[0], message[match.end() :]
        is_word = "_" not in name and "." not in name
        starts = match.start() == 0 and after.startswith((" must ", " is ", " may "))
        is_named = (
            starts or re.match(r"=(?!True|False)| was .*, now ", after)
            if is_word
            else not after.startswith("=True")
        )
        return flag_of[name] if is_named else name

    return re.sub(rf"(?<![\w./(\-'\"])(?:{names})(?![\w/'\"-]|\.\w)", flag, message)
