"""Run each verb of the `tokgen` command: call the library's function of the verb.

Each function returns the result that is printed, or None in a process that prints nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokgen.bitstream.outputs import CODES, TGC
from tokgen.cli import model_settings, settings
from tokgen.cli.checks import STREAM, plan
from tokgen.cli.streams import INPUT, OUTPUT, interrupted_by_kill, output_file, saved_input
from tokgen.tokens.places import is_dataset_place
from tokgen.zoo.names import is_hub_id

if TYPE_CHECKING:
    from tokgen.results import Result

__all__ = [
    "SHOWN_PROBLEMS",
    "codecs",
    "completion",
    "compress",
    "decode",
    "decompress",
    "drift",
    "encode",
    "export",
    "export_tokens",
    "generate",
    "info",
    "recipes",
    "report",
    "score",
    "tokenize",
]

SHOWN_PROBLEMS = 10


def codecs(s: settings.Codecs) -> Result:
    from tokgen.zoo.lookup import list_codecs
    from tokgen.zoo.published import Catalogue, list_published

    return Catalogue(list_codecs(), list_published())


def info(s: settings.Info) -> Result:
    if s.codec.lower().endswith(TGC):
        from tokgen.bitstream.tgc.facts import describe_file

        return describe_file(s.codec)
    if s.codec.lower().endswith(CODES):
        from tokgen.bitstream.codes_file import read_codes

        return read_codes(s.codec)
    from tokgen.tokens.describing import describe_dataset

    if is_dataset_place(s.codec):
        return describe_dataset(s.codec, revision=s.revision)
    from tokgen.zoo.cards import describe_codec
    from tokgen.zoo.lookup import load_network

    try:
        return describe_codec(load_network(s.codec, revision=s.revision))
    except FileNotFoundError as error:
        if not is_hub_id(s.codec):
            raise
        try:
            return describe_dataset(s.codec, revision=s.revision)
        except FileNotFoundError as other:
            raise FileNotFoundError(f"{error}; nor a dataset: {other}") from other


def encode(s: settings.Encode) -> Result:
    from tokgen.bitstream.batch import encode_files
    from tokgen.bitstream.files import encode_file

    if len(s.files) > 1:
        with interrupted_by_kill():
            return _noted(encode_files(**vars(s)))

    def run(file: str, out: Path, **more: Any) -> Result:
        return encode_file(file, out=out, **_without(s, "files", "out"), **more)

    return _code_one(run, s, CODES)


def export(s: settings.Export) -> Result:
    from tokgen.zoo.export.files import export_codec

    return export_codec(**vars(s))


def decode(s: settings.Decode) -> Result:
    from tokgen.bitstream.batch import decode_files
    from tokgen.bitstream.files import decode_file

    form = s.format or "wav"
    more = _without(s, "files", "out", "format", "robust_to", "stable_steps")
    more["stable"] = settings.stable_decoding(s) or False
    if len(s.files) > 1:
        with interrupted_by_kill():
            return _noted(decode_files(s.files, s.out, format=form, **more))

    def run(file: str, out: Path, **named: Any) -> Result:
        return decode_file(file, out, **more, **named)

    return _code_one(run, s, f".{form}")


def compress(s: settings.Compress) -> Result:
    from tokgen.bitstream.tgc_batch import compress_files
    from tokgen.bitstream.tgc_files import compress_file

    if len(s.files) > 1 or Path(s.files[0]).is_dir():
        with interrupted_by_kill():
            return _noted(compress_files(**vars(s)))

    def run(file: str, out: Path, **more: Any) -> Result:
        return compress_file(file, out=out, **_without(s, "files", "out", "jobs"), **more)

    return _code_one(run, s, TGC)


def decompress(s: settings.Decompress) -> Result:
    from tokgen.bitstream.entropy_models import load_model
    from tokgen.bitstream.tgc_batch import decompress_files
    from tokgen.bitstream.tgc_files import decompress_file

    form, model = s.format or "wav", None if s.entropy is None else load_model(s.entropy)
    more = _without(s, "files", "out", "format", "entropy", "jobs") | {"model": model}
    if len(s.files) > 1 or Path(s.files[0]).is_dir():
        with interrupted_by_kill():
            done = decompress_files(s.files, s.out, format=form, jobs=s.jobs, **more)
            return _noted(done)

    def run(file: str, out: Path, **named: Any) -> Result:
        return decompress_file(file, out, **more, **named)

    return _code_one(run, s, f".{form}")


def _code_one(run: Callable[..., Any], s: Any, suffix: str) -> Result:
    """Encode or decode one file. The input and the output may be standard streams."""
    with ExitStack() as stack:
        stack.enter_context(interrupted_by_kill())
        file, more = s.files[0], {}
        if file == STREAM:
            file, more = str(stack.enter_context(saved_input())), {"name": INPUT}
        if s.out != STREAM:
            return _noted(run(file, plan(s)[0], **more))
        result = run(file, stack.enter_context(output_file(suffix)), **more)
    return _noted(replace(result, path=Path(OUTPUT)))


def _noted(result: Any) -> Any:
    """Tell on stderr which files failed, and which samples were clipped."""
    for failure in getattr(result, "failures", ()):
        print(f"failed: {failure}", file=sys.stderr)
    for one in getattr(result, "results", [result]):
        if n_clipped := getattr(one, "n_clipped", 0):
            print(
                f"note: {one.path}: {n_clipped} samples outside [-1, 1] were clipped",
                file=sys.stderr,
            )
    return result


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
    from tokgen.evaluation.per_clip import write_clips
    from tokgen.runs.folder import write_json

    scores = score_codec(**_without(s, "out", "per_clip", "overwrite"))
    if s.out is not None:
        write_json(s.out, scores.to_dict())
    if s.per_clip is not None:
        write_clips(scores.clip_values(), s.per_clip)
    return scores


def drift(s: settings.Drift) -> Result:
    from tokgen.drift.compare import measure_drift

    return measure_drift(s.codec, **_without(s, "codec"))


def export_tokens(s: model_settings.ExportTokens) -> Result:
    from tokgen.tokens.export.writing import export_tokens as export

    with interrupted_by_kill():
        return export(**vars(s))


def generate(s: model_settings.Generate) -> Result:
    from tokgen.generation.files import generate_files

    with interrupted_by_kill():
        made = generate_files(
            s.model,
            s.out,
            s.codec,
            n=s.n,
            seed=s.seed,
            settings=model_settings.sampling_of(s),
            stable=s.stable,
            window_seconds=s.window_seconds,
            overlap_seconds=s.overlap_seconds,
            device=s.device,
            overwrite=s.overwrite,
            **model_settings.request_of(s),
        )
    return _noted(made)


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
