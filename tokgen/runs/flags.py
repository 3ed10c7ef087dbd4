"""How flags of recipes and of the command line are written, and how `--help` shows them."""

from __future__ import annotations

import json
import re
from argparse import SUPPRESS, Action
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import DefaultHelpFormatter

__all__ = [
    "BOOLS",
    "PRINT_CONFIG",
    "PlainHelp",
    "default_word",
    "plain_error",
    "plain_flags",
    "value_word",
    "value_words",
]

BOOLS = ("true", "false", "yes", "no", "on", "off")  # as YAML 1.1 writes them, in any case
_DEFAULTS_HEADING = "default config file locations"  # jsonargparse's
PRINT_CONFIG = "print the settings as a YAML file for --config, and exit"


class PlainHelp(DefaultHelpFormatter):
    """Help that shows what a value may be and its default, without the names of Python types."""

    def start_section(self, heading: str | None) -> None:
        super().start_section("defaults" if heading == _DEFAULTS_HEADING else heading)

    def add_text(self, text: str | None) -> None:
        found = re.search(r"overridden by the contents of: (.*)", text or "", re.DOTALL)
        super().add_text(f"from {found[1]}" if found else text)

    def _get_help_string(self, action: Action) -> str:
        if getattr(action, "_jsonargparse_preexpanded_help", False):
            return action.help or ""
        text = (action.help or "").strip().removesuffix(".")
        if "--print_config" in action.option_strings:
            return PRINT_CONFIG
        if "--help" in action.option_strings:
            return "show this message, and exit"
        if action.default in (None, SUPPRESS, False) or not action.option_strings:
            return text
        return f"{text} (default: {default_word(action.default)})"

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings:
            return self._metavar_formatter(action, action.dest.upper())(1)[0]
        flag = max((f for f in action.option_strings if not f.endswith("+")), key=len)
        short = [f"{f}, " for f in action.option_strings if not f.startswith("--")]
        return " ".join(["".join([*short, flag]), *value_words(action)])

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def default_word(value: Any) -> str:
    """Write a default as it is written after a flag."""
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_words(action: Action) -> list[str]:
    """Return the words after a flag: `{a,b}`, `N`, `SECONDS` ...; [] for a switch."""
    if action.nargs == 0 or "--print_config" in action.option_strings:
        return []
    if "--config" in action.option_strings:
        return ["FILE"]
    name = action.dest.rpartition(".")[2]
    return value_word(getattr(action, "_typehint", action.type), name)


def value_word(kind: Any, name: str) -> list[str]:
    """Return what stands for a value of a type in help; [] for a bool."""
    if get_origin(kind) is not Literal and NoneType in (args := get_args(kind)):
        kind = next(arg for arg in args if arg is not NoneType)
    if get_origin(kind) is Literal:
        return ["{" + ",".join(str(choice) for choice in get_args(kind)) + "}"]
    words = {bool: [], int: ["N"], float: ["SECONDS" if name.endswith("seconds") else "NUMBER"]}
    return words.get(kind, ["PATH"] if kind is Path else [name.upper()])


def plain_flags(argv: Sequence[str], cls: type, switches: Sequence[str] = ()) -> list[str]:
    """Rewrite flags in the form that jsonargparse reads.

    - `--batch-size 4` becomes `--batch_size 4`.
    - `--phase` without a value becomes `--phase=true` if `cls` has a bool of this name.
    - `--codec a --codec b` becomes `--codec ["a", "b"]` if `cls` has a list of strings of this
      name. A JSON list that is given once stays as it is.

    `switches` are flags besides those of `cls` that never take a value.

    Raises:
        ValueError: a flag that takes one value is given twice.
    """
    kinds = {f"--{name.rstrip('_')}": kind for name, kind in get_type_hints(cls).items()}
    rest: list[str] = []
    lists: dict[str, list[str]] = {}
    given: set[str] = set()
    words = deque(argv)
    while words:
        word = words.popleft()
        if word == "--":
            return [*rest, *_joined(lists), word, *words]
        if not word.startswith("--"):
            rest.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = "--" + flag[2:].replace("-", "_")
        if flag[2:] in switches:
            rest.append(flag)
            continue
        kind = kinds.get(flag)
        if kind not in (None, bool, list[str]) and flag in given:
            raise ValueError(f"{flag} is given twice, but takes one value")
        given.add(flag)
        if kind == list[str] and (equals or (words and not words[0].startswith("--"))):
            lists.setdefault(flag, []).append(value if equals else words.popleft())
        elif kind is bool and not equals and (not words or words[0].lower() not in BOOLS):
            rest.append(f"{flag}=true")
        else:
            rest.append(flag + equals + value)
    return [*rest, *_joined(lists)]


def plain_error(message: str, cls: type) -> str:
    """Shorten jsonargparse's message about a value of the wrong type, on one line."""
    found = re.search(r'key "([\w.]+)":.*value: (.*)', message, re.DOTALL)
    kind: Any = cls
    for name in found[1].split(".") if found else []:
        known = get_type_hints(kind) if isinstance(kind, type) else {}
        kind = known.get(name, known.get(f"{name}_"))  # `from_` is the flag --from
    if found is None or kind is None:
        return " ".join(message.split())
    union = get_origin(kind) in (Union, UnionType)
    kinds = [c for c in get_args(kind) if c is not NoneType] if union else [kind]
    wanted = " or ".join(_wanted(c, alone=len(kinds) == 1) for c in kinds)
    return f"{found[1]} is {found[2]!r}, but must be {wanted}"


def _wanted(kind: Any, *, alone: bool) -> str:
    """Say what a value of a type must be."""
    if get_origin(kind) is Literal:
        words = ", ".join(map(str, get_args(kind)))
        return f"one of {words}" if alone else words
    names = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    first = (get_args(kind) or (kind,))[0]
    return names.get(first, getattr(kind, "__name__", str(kind)))


def _joined(lists: dict[str, list[str]]) -> list[str]:
    words = []
    for flag, values in lists.items():
        whole = len(values) == 1 and values[0].startswith("[")
        words += [flag, values[0] if whole else json.dumps(values)]
    return words
