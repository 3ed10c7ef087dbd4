"""Read the settings of a verb from its flags and its `--config` file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from inspect import get_annotations
from typing import Any, get_args, get_origin, get_type_hints

from tokgen.runs.checks import closest

__all__ = [
    "JSON",
    "Verb",
    "first_line",
    "flag_of",
    "groups_of",
    "is_required",
    "make_parser",
    "name_flags",
    "read_settings",
    "texts_of",
]

JSON = "print the result as JSON and nothing else"


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Attributes:
        run: called with the settings; returns the result to print. Its name is the verb's.
        settings: dataclass of the settings; the first line of its docstring is the help text.
        positional: settings given without a flag, in order. A list takes several words, and a
            setting with a default may be left out.
        examples: commands that the help shows.
        again: printed after Ctrl-C, to say how to go on.
        json: the result can be printed as JSON.
    """

    run: Callable[[Any], Any]
    settings: type
    positional: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    again: str = ""
    json: bool = True

    @property
    def name(self) -> str:
        return self.run.__name__.replace("_", "-")

    @property
    def help(self) -> str:
        return first_line(self.settings)


def first_line(cls: type) -> str:
    return (cls.__doc__ or "").splitlines()[0]


def flag_of(name: str) -> str:
    """Return the flag of a setting: `from_`, whose plain name is a word of Python, is --from."""
    return f"--{name.rstrip('_')}"


def groups_of(verb: Verb) -> dict[str, list[Field]]:
    """Return the settings that have flags by the title of their group: required ones first."""
    left = {f.name: f for f in fields(verb.settings) if f.name not in verb.positional}
    found = {"required": [f for f in left.values() if is_required(f)]}
    for cls in verb.settings.__mro__[:-1]:
        title = "options" if cls is verb.settings else first_line(cls).rstrip(".").lower()
        mine = [left[name] for name in get_annotations(cls) if name in left]
        found[title] = [f for f in mine if not is_required(f)]
    return {title: group for title, group in found.items() if group}


def is_required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def texts_of(cls: type) -> dict[str, str]:
    """Return the text of each setting in the docstrings of a dataclass and of its bases."""
    import docstring_parser

    return {
        param.arg_name: param.description or ""
        for base in reversed(cls.__mro__[:-1])
        for param in docstring_parser.parse(base.__doc__ or "").params
    }


def make_parser(verb: Verb) -> Any:
    """Make the jsonargparse parser of a verb."""
    from jsonargparse import ArgumentParser

    from tokgen.runs.flags import PlainHelp, value_word

    texts, kinds = texts_of(verb.settings), get_type_hints(verb.settings)
    all_fields = {f.name: f for f in fields(verb.settings)}
    examples = "\n".join(f"  {line}" for line in verb.examples)
    parser: Any = ArgumentParser(
        prog=f"tokgen {verb.name}",
        description=verb.help,
        epilog=f"examples:\n{examples}" if examples else None,
        usage=_usage(verb, {name: value_word(kind, name) for name, kind in kinds.items()}),
        formatter_class=PlainHelp,
        exit_on_error=False,
    )
    for name in verb.positional:
        kind, options = kinds[name], {}
        if get_origin(kind) is list:
            kind, options = get_args(kind)[0], {"nargs": "+"}
        elif not is_required(all_fields[name]):
            options = {"nargs": "?", "default": _default(all_fields[name])}
        parser.add_argument(name, type=kind, help=texts[name], **options)
    for title, group in groups_of(verb).items():
        arguments = parser.add_argument_group(title)
        for field in group:
            arguments.add_argument(
                flag_of(field.name),
                type=kinds[field.name],
                help=texts[field.name],
                required=is_required(field),
                default=None if is_required(field) else _default(field),
            )
    if verb.json:
        parser.add_argument("--json", action="store_true", help=JSON)
    parser.add_argument("--config", action="config", help="YAML file of settings; later flags win")
    parser._optionals.title = "every verb has" if verb.json else "options"
    parser._action_groups.append(  # shown last
        parser._action_groups.pop(parser._action_groups.index(parser._optionals))
    )
    return parser


def read_settings(verb: Verb, argv: Sequence[str]) -> tuple[Any, bool]:
    """Read a verb's settings, and whether to print its result as JSON.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type.
    """
    from jsonargparse import ArgumentError

    from tokgen.runs.flags import plain_flags

    parser = make_parser(verb)
    try:
        words = plain_flags(argv, verb.settings, switches=("json",))
        found = parser.parse_args(words).as_dict()
    except ArgumentError as error:
        raise ValueError(f"{_explain(str(error), verb)}; see {parser.prog} --help") from error
    del found["config"]
    as_json = found.pop("json", False)
    found = {field.name: found[flag_of(field.name)[2:]] for field in fields(verb.settings)}
    return verb.settings(**found), as_json


def name_flags(message: str, verb: Verb) -> str:
    """Write the names of settings in a message as flags: "workers is -1" as "--workers is -1".

    A name without "_" is also a word. It is a flag at the start before "is" or "=", or after "set".
    """
    for field in fields(verb.settings):
        name = flag_of(field.name)[2:]
        if field.name in verb.positional:
            continue
        if "_" in name:
            message = re.sub(rf"(?<![\w./-]){name}(?:=True)?(?![\w./-])", f"--{name}", message)
        else:
            message = re.sub(rf"^{name}(?= is | = )|(?<= set ){name}\b", f"--{name}", message)
    return message


def _explain(error: str, verb: Verb) -> str:
    """Name unknown and missing settings as they are written on the command line."""
    from tokgen.runs.flags import plain_error

    message = plain_error(error, verb.settings)
    if found := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        flag = found[1].partition("=")[0]
        if not flag.startswith("-"):
            if verb.positional:
                words = " ".join(name.upper() for name in verb.positional)
                return f"unexpected {flag!r}: {verb.name} takes {words} before the flags"
            needed = ", ".join(flag_of(field.name) for field in groups_of(verb).get("required", []))
            such = f", such as {needed}" if needed else ""
            return f"unexpected {flag!r}: it has no flag before it{such}"
        known = [flag_of(f.name) for f in fields(verb.settings) if f.name not in verb.positional]
        close = closest(flag, [*known, "--config", "--print_config", "--json", "--help"])
        return f"unknown {flag}{close}"
    if found := re.search(r"arguments are required: (.*)", message):
        missing = [name.strip() for name in found[1].split(",")]
        flags = [name if name in verb.positional else f"--{name.lstrip('-')}" for name in missing]
        return f"missing: {', '.join(flags)}"
    return message


def _default(field: Field) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _usage(verb: Verb, words: dict[str, list[str]]) -> str:
    """Return the usage line: positional and required settings, then "[options]"."""
    parts = []
    for field in fields(verb.settings):
        if field.name in verb.positional:
            word = (words[field.name] or [field.name.upper()])[0]
            word = word if word.startswith("{") else field.name.upper()
            parts.append(word if is_required(field) else f"[{word}]")
    required = groups_of(verb).get("required", [])
    parts += [" ".join([flag_of(field.name), *words[field.name]]) for field in required]
    return " ".join([f"tokgen {verb.name}", *parts, "[options]"])
