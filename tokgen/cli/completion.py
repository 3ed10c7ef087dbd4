"""Completion of verbs, flags, choices and codec names in bash, zsh and fish, by argcomplete."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tokgen.cli.parsing import Verb, flag_of
from tokgen.cli.settings import Recipes

__all__ = ["KNOWN", "complete", "make_plain_parser", "script"]


def script(shell: str) -> str:
    """Return the script that a shell evaluates to complete `tokgen`."""
    from argcomplete import shellcode

    return shellcode(["tokgen"], shell=shell).strip()


def complete(verbs: Mapping[str, Verb]) -> None:
    """Answer the shell's question for completions and exit, if the script of `script` asks."""
    from argcomplete import autocomplete

    autocomplete(make_plain_parser(verbs))


def make_plain_parser(verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """Make a parser that knows the names of verbs and flags, and the choices of values.

    It imports no libraries, so that completion is fast.
    """
    parser = argparse.ArgumentParser(prog="tokgen")
    parser.add_argument("--version", action="store_true")
    choices = parser.add_subparsers()
    for name, verb in verbs.items():
        chosen = choices.add_parser(name)
        kinds = get_type_hints(verb.settings)
        for field in fields(verb.settings):
            positional = field.name in verb.positional
            flag = field.name if positional else flag_of(field.name)
            argument: Any = chosen.add_argument(flag, **_options(kinds[field.name], positional))
            if field.name == "codec":
                argument.completer = _codec_names
            elif field.name in KNOWN:
                argument.completer = KNOWN[field.name]
            elif verb.settings is Recipes and field.name == "name":
                argument.completer = _recipe_names
        for flag in ("--json", "--print_config") if verb.json else ("--print_config",):
            chosen.add_argument(flag, action="store_true")
        chosen.add_argument("--config")
    return parser


def _options(kind: Any, positional: bool) -> dict[str, Any]:
    """Return the arguments of `add_argument` for a type."""
    if get_origin(kind) is list:
        return {"nargs": "+"} if positional else {"action": "append"}
    optional = NoneType in get_args(kind)
    if get_origin(kind) is not Literal and optional:
        kind = next(arg for arg in get_args(kind) if arg is not NoneType)
    if kind is bool:
        return {"action": "store_true"}
    options: dict[str, Any] = {"nargs": "?"} if positional and optional else {}
    return options | ({"choices": get_args(kind)} if get_origin(kind) is Literal else {})


def _metric_names(**_: Any) -> list[str]:
    from tokgen.evaluation.metric import METRICS

    return list(METRICS)


def _recognisers(**_: Any) -> list[str]:
    from tokgen.evaluation.metric import BACKENDS

    return list(BACKENDS["asr"])


def _devices(**_: Any) -> list[str]:
    return ["auto", "cpu", "cuda", "mps"]


KNOWN = {"metrics": _metric_names, "asr": _recognisers, "device": _devices}


def _recipe_names(**_: Any) -> list[str]:
    from tokgen.cli.recipe_files import list_recipes

    return [recipe.name for recipe in list_recipes()]


def _codec_names(**_: Any) -> list[str]:
    from tokgen.zoo.folders import zoo_folders

    return sorted({f.name for zoo in zoo_folders() for f in zoo.iterdir() if f.is_dir()})
