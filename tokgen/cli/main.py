"""The `tokgen` command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any, NoReturn

import tokgen
from tokgen.cli import model_settings, settings, verbs
from tokgen.cli.checks import STREAM, check
from tokgen.cli.parsing import Verb, name_flags, read_settings
from tokgen.cli.streams import ClosedOutput, Killed, output_errors
from tokgen.results import Result, one_line, printable, short_warning, to_json
from tokgen.runs.checks import closest

__all__ = ["AGAIN", "GO_ON", "VERBS", "WHOLE", "main", "run"]

WHOLE = "; files that were written are whole, and no other file was left"
AGAIN = "; run the same command again"
GO_ON = ": run the same command again to go on"

VERBS = {
    verb.name: verb
    for verb in (
        Verb(verbs.codecs, settings.Codecs, examples=("tokgen codecs", "tokgen codecs --json")),
        Verb(
            verbs.info,
            settings.Info,
            ("codec",),
            (
                "tokgen info speech-16k",
                "tokgen info descript/dac_16khz --revision main",
                "tokgen info tokens",
                "tokgen info speech.tgc",
            ),
        ),
        Verb(
            verbs.encode,
            settings.Encode,
            ("files",),
            (
                "tokgen encode speech.wav --codec speech-16k --out speech.safetensors",
                "tokgen encode a.wav b.mp3 --codec speech-16k --out codes/",
                "cat a.wav | tokgen encode - --codec speech-16k --out - > a.safetensors",
            ),
            WHOLE,
        ),
        Verb(
            verbs.decode,
            settings.Decode,
            ("files",),
            (
                "tokgen decode speech.safetensors --out decoded.wav",
                "tokgen decode a.safetensors b.safetensors --out decoded/ --format flac",
                "tokgen decode speech.safetensors --out stable.wav --stable",
            ),
            WHOLE,
        ),
        Verb(
            verbs.compress,
            settings.Compress,
            ("files",),
            (
                "tokgen compress speech.wav --codec speech-16k --out speech.tgc",
                "tokgen compress my_audio/ b.mp3 --codec speech-16k --out compressed/ --jobs 4",
                "cat a.wav | tokgen compress - --codec speech-16k --out - > a.tgc",
            ),
            WHOLE,
        ),
        Verb(
            verbs.decompress,
            settings.Decompress,
            ("files",),
            (
                "tokgen decompress speech.tgc --out decoded.wav",
                "tokgen decompress compressed/ --out decoded/ --format flac",
                "tokgen decompress speech.tgc --out part.wav --start 60 --seconds 5",
                "tokgen decompress speech.tgc --out stable.wav --stable",
            ),
            WHOLE,
        ),
        Verb(
            verbs.export,
            settings.Export,
            ("codec",),
            (
                "tokgen export speech-16k --out exported",
                "tokgen export descript/dac_16khz --out exported --json",
                "tokgen export speech-16k --out exported --format pt2",
            ),
            AGAIN,
        ),
        Verb(
            verbs.tokenize,
            settings.Tokenize,
            (),
            (
                "tokgen tokenize --corpus my_audio/ --codec speech-16k --out tokens",
                "tokgen tokenize --corpus owner/dataset --streaming --codec facebook/encodec_24khz "
                "\\\n      --out s3://bucket/tokens --device cuda",
            ),
            f"; finished shards are kept{GO_ON}",
        ),
        Verb(
            verbs.export_tokens,
            model_settings.ExportTokens,
            (),
            (
                "tokgen export-tokens --tokens tokens --out exported --layout offsets",
                "tokgen export-tokens --tokens owner/tokens --out exported --layout delay \\\n"
                "      --format webdataset",
            ),
            AGAIN,
        ),
        Verb(
            verbs.generate,
            model_settings.Generate,
            (),
            (
                "tokgen generate --like speech.wav --out out.wav",
                'tokgen generate --model runs/tts_masked --text "Press two." --out out.wav',
                "tokgen generate --model runs/vocode_mfcc/model --continue prompt.wav \\\n"
                "      --seconds 5 --out out.wav --n 4 --seed 1",
                "tokgen generate --infill speech.wav --from 1.2 --to 2.0 --out out.wav",
                "tokgen generate --vary speech.wav --keep 0.3 --out out.wav",
            ),
            WHOLE,
        ),
        Verb(
            verbs.score,
            settings.Score,
            (),
            (
                "tokgen score --corpus my_audio/ --codec speech-16k",
                "tokgen score --corpus my_audio/ --codec speech-16k --codec speech-16k-code \\\n"
                "      --metrics pesq,si_sdr --json",
            ),
            AGAIN,
        ),
        Verb(
            verbs.drift,
            settings.Drift,
            (),
            (
                "tokgen drift --corpus my_audio/ --codec speech-16k --codec opus:12 --out drift",
                "tokgen drift --corpus my_audio/ --codec speech-16k --out drift --passes 5 --phase",
                "tokgen drift --corpus my_audio/ --codec speech-16k --out drift \\\n"
                "      --protocol paper --shift random",
                "tokgen drift --corpus my_audio/ --codec speech-16k --out drift --stable",
            ),
            f"; finished clips are kept{GO_ON}",
        ),
        Verb(
            verbs.report,
            settings.Report,
            ("runs",),
            ("tokgen report runs/vocode_mfcc", "tokgen report drift runs/a --out page.html"),
            AGAIN,
        ),
        Verb(
            verbs.recipes,
            settings.Recipes,
            ("action", "name"),
            ("tokgen recipes list", "tokgen recipes copy vocode_mfcc --to my_project"),
            AGAIN,
        ),
        Verb(
            verbs.completion,
            settings.Completion,
            ("shell",),
            (
                'eval "$(tokgen completion bash)"     # in ~/.bashrc',
                'eval "$(tokgen completion zsh)"      # in ~/.zshrc',
                "tokgen completion fish > ~/.config/fish/completions/tokgen.fish",
            ),
            json=False,
        ),
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 if it succeeded, 1 if some of several files failed or a file is damaged, 2 after an
        error, 130 after Ctrl-C, 143 after SIGTERM, and 141 if nobody reads the standard output any
        more.
    """
    argv = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:
        from tokgen.cli.completion import complete

        complete(VERBS)
    if not argv:
        _parser().print_help(sys.stderr)
        return 2
    verb = None
    try:
        if not argv[0].startswith("-") and argv[0] not in VERBS:
            raise ValueError(
                f"no verb {argv[0]!r}{closest(argv[0], VERBS)}; verbs are {', '.join(VERBS)}"
            )
        try:
            verb = VERBS[_parser().parse_args(argv[:1]).verb]
            return run(verb, argv[1:])
        except SystemExit:  # after --help and --version
            with output_errors():
                raise
    except ClosedOutput:
        return 128 + 13  # SIGPIPE
    except KeyboardInterrupt as error:
        print(f"interrupted{verb.again if verb else ''}", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(error, Killed) else signal.SIGINT)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        message = printable(one_line(str(error)))
        print("error:", name_flags(message, verb) if verb else message, file=sys.stderr)
        return 2


def run(verb: Verb, argv: Sequence[str]) -> int:
    """Check a verb's settings, run the verb, and print its result. Warnings take one line.

    The result goes to stderr if the standard output holds a file.

    Returns:
        1 if some of several files failed or a file is damaged, else 0.
    """
    form = warnings.formatwarning
    warnings.formatwarning = short_warning
    try:
        found, as_json = read_settings(verb, argv)
        if as_json and getattr(found, "out", None) == STREAM:
            raise ValueError(f"--json and --out {STREAM} both write to the standard output")
        check(found)
        # with --json, whatever a library prints goes to stderr
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            result = verb.run(found)
    finally:
        warnings.formatwarning = form
    if result is not None:
        stream = sys.stderr if getattr(found, "out", None) == STREAM else sys.stdout
        with output_errors():
            print(to_json(_values(result)) if as_json else result, file=stream)
    return getattr(result, "exit_code", 0)


def _values(result: Result) -> Any:
    """Return the JSON values of a result: a list for several files."""
    values = getattr(result, "to_list", result.to_dict)
    return values()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    """A parser of the verb alone, without jsonargparse, so that `tokgen --help` starts fast."""
    parser = _Parser(
        prog="tokgen",
        description="Generative modelling on neural-codec tokens.",
        epilog="`tokgen VERB --help` shows the settings of a verb, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"tokgen {tokgen.__version__}")
    choices = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    for name, verb in VERBS.items():
        choices.add_parser(name, help=verb.help)
    return parser
