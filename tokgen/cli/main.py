"""The `tokgen` command: every verb a call into the library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import tokgen
from tokgen.cli import verbs as cli_verbs


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 after an error, 130 after Ctrl-C."""
    again = ""
    try:
        args = _parser().parse_args(argv)
        again = args.again
        args.verb(args)
    except KeyboardInterrupt:
        print(f"interrupted{again}", file=sys.stderr)
        return 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tokgen", description="Generative modelling on neural-codec tokens.")
    parser.add_argument("--version", action="version", version=f"tokgen {tokgen.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    codec_help = "name in the zoo (see `tokgen codecs`), a folder, or a hub id"

    verb = verbs.add_parser("codecs", help="list the codecs of the zoo")
    verb.set_defaults(verb=cli_verbs.codecs, again="")

    verb = verbs.add_parser("info", help="say what a codec is")
    verb.set_defaults(verb=cli_verbs.info, again="")
    verb.add_argument("codec", metavar="NAME", help=codec_help)
    verb.add_argument("--revision", help="of a hub id")

    verb = verbs.add_parser("encode", help="audio file -> codes file")
    verb.set_defaults(verb=cli_verbs.encode, again="; run the same command again")
    verb.add_argument("file", type=Path, help="audio of any format and rate")
    verb.add_argument("--codec", required=True, help=codec_help)
    verb.add_argument("--out", type=Path, required=True, help="a .safetensors file")
    verb.add_argument(
        "--n-codebooks", type=int, metavar="K", help="levels to keep, all if left out"
    )
    _add_device(verb)

    verb = verbs.add_parser("decode", help="codes file -> audio file")
    verb.set_defaults(verb=cli_verbs.decode, again="; run the same command again")
    verb.add_argument("file", type=Path, help="what `tokgen encode` wrote")
    verb.add_argument("--codec", help=f"the one that made the codes: {codec_help}")
    verb.add_argument("--out", type=Path, required=True, help="a .wav or .flac file")
    _add_device(verb)

    verb = verbs.add_parser("tokenize", help="corpus -> token dataset")
    verb.set_defaults(
        verb=cli_verbs.tokenize,
        again="; finished shards are kept: run the same command again to go on",
    )
    _add_corpus(verb)
    verb.add_argument("--codec", required=True, help=codec_help)
    verb.add_argument("--out", required=True, help="folder of the dataset, or an fsspec URL")
    verb.add_argument("--require-text", action="store_true", help="reject clips without transcript")
    verb.add_argument(
        "--n-codebooks", type=int, metavar="K", help="levels to keep, all if left out"
    )
    verb.add_argument(
        "--conditioning", default="mfcc", help="mfcc (default), log_mel or none, for each frame"
    )
    verb.add_argument(
        "--batch-seconds", type=float, metavar="S", help="audio per batch (CPU 10, GPU 240)"
    )
    verb.add_argument(
        "--engine",
        default="local",
        help="local (default), accelerate (under `accelerate launch`), ray (a cluster)",
    )
    verb.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (one a core, beside a GPU up to 8 that read) or Ray's actors (one a CPU "
        "or GPU of the cluster)",
    )
    verb.add_argument(
        "--shard-rows", type=int, default=64, metavar="N", help="utterances of a shard (64)"
    )
    verb.add_argument(
        "--shard-seconds", type=float, default=120.0, metavar="S", help="audio of a shard (120)"
    )
    verb.add_argument(
        "--format", help="arrow (a folder's default) or parquet (of URLs and ray, any size)"
    )
    verb.add_argument(
        "--precision",
        default="auto",
        help="auto (default: float32 on a CPU, on a GPU what gives the same codes), float32, "
        "tf32, bfloat16",
    )
    verb.add_argument(
        "--streaming",
        action="store_true",
        help="read a hub dataset, or Parquet, as it comes: no download, no listing; a shard of it "
        "is then a shard of the dataset",
    )
    _add_device(verb)

    verb = verbs.add_parser("score", help="codec x corpus -> table of metrics")
    verb.set_defaults(verb=cli_verbs.score, again="; run the same command again")
    _add_corpus(verb)
    verb.add_argument("--codec", required=True, help=codec_help)
    verb.add_argument(
        "--metrics",
        default="cer,mos,pesq,si_sdr",
        help="cer,mos,pesq,si_sdr (default); speaker, f0 and voicing too",
    )
    verb.add_argument("--asr", default="auto", help="auto (default), wav2vec2, moonshine")
    verb.add_argument("--mos", default="auto", help="auto (default), squim, distillmos")
    verb.add_argument(
        "--mos-reference",
        type=Path,
        metavar="FILE",
        help="clean speech for squim, no clip of the corpus; without it auto takes distillmos",
    )
    verb.add_argument(
        "--workers", type=int, metavar="N", help="processes that score; one a core if left out"
    )
    verb.add_argument("--out", type=Path, help="a .json file for the numbers")
    _add_device(verb)

    verb = verbs.add_parser("drift", help="codecs x corpus -> how they change under re-encoding")
    verb.set_defaults(
        verb=cli_verbs.drift, again="; finished clips are kept: run the same command again to go on"
    )
    _add_corpus(verb)
    verb.add_argument(
        "--codec",
        required=True,
        action="append",
        help=f"{codec_help}, mp3:KBPS or opus:KBPS; once for each codec",
    )
    verb.add_argument("--out", type=Path, required=True, help="folder of the results")
    verb.add_argument("--passes", type=int, default=25, help="encodings (25)")
    verb.add_argument(
        "--clip-seconds", type=float, default=5.0, help="clips are cut to it (5); 0 keeps them"
    )
    verb.add_argument("--clips", type=int, metavar="N", help="the first N clips, all if left out")
    verb.add_argument(
        "--match-level",
        action="store_true",
        help="bring every output to the original's level, as the paper does",
    )
    verb.add_argument("--phase", action="store_true", help="match under shifts of up to 2 ms too")
    verb.add_argument("--samples", type=int, default=2, help="clips written as audio (2)")
    _add_device(verb)

    verb = verbs.add_parser("report", help="run folders -> one HTML page to look at and listen to")
    verb.set_defaults(verb=cli_verbs.report, again="; run the same command again")
    verb.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run")
    verb.add_argument(
        "--out", type=Path, help="the .html file; RUN/report.html, or ./report.html of several runs"
    )
    verb.add_argument(
        "--clips", type=int, default=12, metavar="N", help="utterances to embed a run (12)"
    )
    verb.add_argument(
        "--audio", default="wav", help="wav (default, 16 bits, nothing lost) or opus (small)"
    )
    verb.add_argument(
        "--opus-kbps", type=int, default=64, metavar="KBPS", help="bitrate of opus (64)"
    )
    return parser


def _add_corpus(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--corpus",
        required=True,
        help="folder of audio, .parquet file or folder of them, saved dataset, a URL of one of "
        "them (s3://, gs://, hf:// ...), or a hub dataset",
    )
    verb.add_argument("--split", help="one split of the corpus, all if left out")
    verb.add_argument("--min-seconds", type=float, metavar="S", help="leave out shorter clips")
    verb.add_argument("--max-seconds", type=float, metavar="S", help="leave out longer clips")


def _add_device(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1 ...")


if __name__ == "__main__":
    sys.exit(main())
