"""Run each verb of the `tokgen` command: call the library's function of the verb.

Each function returns the result that is printed, or None in a process that prints nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tokgen.cli import settings

if TYPE_CHECKING:
    from tokgen.results import Result

__all__ = [
    "SHOWN_PROBLEMS",
    "codecs",
    "completion",
    "decode",
    "drift",
    "encode",
    "info",
    "recipes",
    "report",
    "score",
    "tokenize",
]

SHOWN_PROBLEMS = 10


def codecs(s: settings.Codecs) -> Result:
    from tokgen.zoo.lookup import list_codecs

    return list_codecs()


def info(s: settings.Info) -> Result:
    from tokgen.zoo.cards import describe_codec
    from tokgen.zoo.lookup import load_codec

    return describe_codec(load_codec(s.codec, revision=s.revision))


def encode(s: settings.Encode) -> Result:
    from tokgen.bitstream.files import encode_file

    return encode_file(**vars(s))


def decode(s: settings.Decode) -> Result:
    from tokgen.bitstream.files import decode_file

    decoded = decode_file(**vars(s))
    if decoded.n_clipped:
        print(f"note: {decoded.n_clipped} samples outside [-1, 1] were clipped", file=sys.stderr)
    return decoded


def tokenize(s: settings.Tokenize) -> Result | None:
    from tokgen.tokens.engines.run import Place
    from tokgen.tokens.tokenizing import tokenize_corpus

    report = tokenize_corpus(**vars(s))
    if not Place.of(s.engine).is_first:
        return None
    rejected = [f"rejected {rejection}" for rejection in report.rejections]
    _show(rejected, f"all in {s.out}/rejections.jsonl")
    return report


def score(s: settings.Score) -> Result:
    from tokgen.evaluation.codec_scores import score_codec
    from tokgen.runs.folder import write_json

    scores = score_codec(**_without(s, "out", "overwrite"))
    if s.out is not None:
        write_json(s.out, scores.to_dict())
    return scores


def drift(s: settings.Drift) -> Result:
    from tokgen.drift.compare import measure_drift

    return measure_drift(s.codec, **_without(s, "codec"))


def report(s: settings.Report) -> Result:
    from tokgen.report.page import write_report

    written = write_report(**vars(s))
    _show([f"missing {problem}" for problem in written.problems], "listed in the page")
    return written


def recipes(s: settings.Recipes) -> Result:
    from tokgen.cli.recipe_files import copy_recipe, list_recipes

    if s.action == "list" and s.name is not None:
        raise ValueError("`tokgen recipes list` takes no name; `copy NAME` copies a recipe")
    if s.action == "list":
        return list_recipes()
    if s.name is None:
        raise ValueError("name the recipe to copy; `tokgen recipes list` shows them")
    return copy_recipe(s.name.removesuffix(".py"), s.to, overwrite=s.overwrite)


def completion(s: settings.Completion) -> str:
    from tokgen.cli.completion import script

    return script(s.shell)


def _without(s: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in vars(s).items() if name not in names}


def _show(problems: list[str], source: str) -> None:
    for problem in problems[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"... and {len(problems) - SHOWN_PROBLEMS} more, {source}", file=sys.stderr)
