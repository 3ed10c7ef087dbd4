"""The `tokgen` command."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import tokgen
from tokgen.cli import settings, verbs

AGAIN = "; run the same command again"
GO_ON = ": run the same command again to go on"


class Verb(NamedTuple):
    """One verb of the command.

    Attributes:
        run: called with the settings; its name is the verb's.
        settings: dataclass of the settings; the first line of its docstring is the help text.
        positional: the setting given without a flag; a list takes several words.
        again: printed after Ctrl-C, to say how to go on.
    """

    run: Callable[[Any], Any]
    settings: type
    positional: str | None = None
    again: str = ""


VERBS = {
    verb.run.__name__: verb
    for verb in (
        Verb(verbs.codecs, settings.Codecs),
        Verb(verbs.info, settings.Info, "codec"),
        Verb(verbs.encode, settings.Encode, "file", AGAIN),
        Verb(verbs.decode, settings.Decode, "file", AGAIN),
        Verb(verbs.tokenize, settings.Tokenize, None, f"; finished shards are kept{GO_ON}"),
        Verb(verbs.score, settings.Score, None, AGAIN),
        Verb(verbs.drift, settings.Drift, None, f"; finished clips are kept{GO_ON}"),
        Verb(verbs.report, settings.Report, "runs", AGAIN),
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 if it succeeded, 2 after an error, 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    again = ""
    try:
        verb = VERBS[_parser().parse_args(argv[:1]).verb]
        again = verb.again
        if (result := verb.run(read_settings(verb, argv[1:]))) is not None:
            print(result)
    except KeyboardInterrupt:
        print(f"interrupted{again}", file=sys.stderr)
        return 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    """A parser of the verb alone, without jsonargparse, so that `tokgen --help` starts fast."""
    parser = _Parser(prog="tokgen", description="Generative modelling on neural-codec tokens.")
    parser.add_argument("--version", action="version", version=f"tokgen {tokgen.__version__}")
    choices = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    for name, verb in VERBS.items():
        choices.add_parser(name, help=(verb.settings.__doc__ or "").splitlines()[0])
    return parser


def read_settings(verb: Verb, argv: Sequence[str]) -> Any:
    """Read a verb's settings from its flags and its `--config` file."""
    import docstring_parser
    from jsonargparse import ArgumentError, ArgumentParser

    from tokgen.runs.settings import plain_flags

    parser = ArgumentParser(prog=f"tokgen {verb.run.__name__}", exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of settings; later flags win")
    if verb.positional:
        docs = docstring_parser.parse(verb.settings.__doc__ or "").params
        text = next(doc.description for doc in docs if doc.arg_name == verb.positional)
        kind = get_type_hints(verb.settings)[verb.positional]
        many = {"type": get_args(kind)[0], "nargs": "+"} if get_origin(kind) is list else {}
        parser.add_argument(verb.positional, **{"type": kind, **many}, help=text)
    parser.add_class_arguments(verb.settings, skip={verb.positional} if verb.positional else None)
    try:
        found = parser.parse_args(plain_flags(argv, verb.settings)).as_dict()
    except ArgumentError as error:
        raise ValueError(
            f"{_plain(str(error), verb.settings)}; see {parser.prog} --help"
        ) from error
    del found["config"]
    return verb.settings(**found)


def _plain(message: str, settings: type) -> str:
    """Shorten jsonargparse's message about a value of the wrong type."""
    found = re.search(r'key "(\w+)":.*value: (.*)', message, re.DOTALL)
    kinds = {field.name: str(field.type) for field in fields(settings)}
    if found is None or found[1] not in kinds:
        return message
    kind = kinds[found[1]].replace("Literal", "one of ")
    return f"{found[1]} is {found[2]!r}, but must be {kind}"
