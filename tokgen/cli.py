"""The `tokgen` command: every verb a call into the library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import tokgen

if TYPE_CHECKING:
    from tokgen.corpus import Corpus, Rejection

SHOWN_REJECTIONS = 10


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
    verb.set_defaults(verb=_codecs, again="")

    verb = verbs.add_parser("info", help="say what a codec is")
    verb.set_defaults(verb=_info, again="")
    verb.add_argument("codec", metavar="NAME", help=codec_help)
    verb.add_argument("--revision", help="of a hub id")

    verb = verbs.add_parser("encode", help="audio file -> codes file")
    verb.set_defaults(verb=_encode, again="; run the same command again")
    verb.add_argument("file", type=Path, help="audio of any format and rate")
    verb.add_argument("--codec", required=True, help=codec_help)
    verb.add_argument("--out", type=Path, required=True, help="a .safetensors file")
    verb.add_argument(
        "--n-codebooks", type=int, metavar="K", help="levels to keep, all if left out"
    )
    _add_device(verb)

    verb = verbs.add_parser("decode", help="codes file -> audio file")
    verb.set_defaults(verb=_decode, again="; run the same command again")
    verb.add_argument("file", type=Path, help="what `tokgen encode` wrote")
    verb.add_argument("--codec", help=f"the one that made the codes: {codec_help}")
    verb.add_argument("--out", type=Path, required=True, help="a .wav or .flac file")
    _add_device(verb)

    verb = verbs.add_parser("tokenize", help="corpus -> token dataset")
    verb.set_defaults(
        verb=_tokenize, again="; finished shards are kept: run the same command again to go on"
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
        "--workers", type=int, metavar="N", help="processes or actors; one a core if left out"
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
        "--streaming", action="store_true", help="read a hub dataset without downloading it"
    )
    _add_device(verb)

    verb = verbs.add_parser("score", help="codec x corpus -> table of metrics")
    verb.set_defaults(verb=_score, again="; run the same command again")
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
    verb.add_argument("--out", type=Path, help="a .json file for the numbers")
    _add_device(verb)

    verb = verbs.add_parser("drift", help="codecs x corpus -> how they change under re-encoding")
    verb.set_defaults(
        verb=_drift, again="; finished clips are kept: run the same command again to go on"
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
    verb.set_defaults(verb=_report, again="; run the same command again")
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


def _device(name: str) -> str:
    import torch

    kind, _, index = name.partition(":")
    available = {"cpu": 1, "cuda": torch.cuda.device_count()}
    if kind not in available or not (index or "0").isdecimal():
        raise ValueError(f"device {name!r}: give cpu, cuda or cuda:<number>")
    if int(index or 0) >= available[kind]:
        raise ValueError(f"device {name!r}: this machine has {available[kind]} of {kind}")
    return name


def _codecs(args: argparse.Namespace) -> None:
    from tokgen.zoo import list_codecs, zoo_folders

    cards = list_codecs()
    if not cards:
        places = ", ".join(str(place) for place in zoo_folders()) or "no folder"
        print(f"no codecs in {places}: set TOKGEN_ZOO, or name a folder or a hub id")
        return
    rows = [("name", "rate", "hop", "frames/s", "codebooks", "kbps", "licence", "summary")]
    for card in cards:
        s = card.spec
        rows.append(
            (
                card.name,
                f"{s.sample_rate}",
                f"{s.hop_length}",
                f"{s.frame_rate:g}",
                f"{s.n_codebooks} x {s.codebook_size}",
                f"{s.bitrate / 1000:.2f}",
                s.licence,
                card.summary,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def _info(args: argparse.Namespace) -> None:
    from tokgen.zoo import load_codec

    codec = load_codec(args.codec, revision=args.revision)
    s = codec.spec
    n_parameters = sum(p.numel() for p in codec.model.parameters())
    facts = {
        "name": s.name,
        "network": f"{type(codec.model).__name__} of {s.library}",
        "parameters": f"{n_parameters / 1e6:.2f}M",
        "sample rate": f"{s.sample_rate} Hz",
        "hop length": f"{s.hop_length} samples, {s.frame_rate:g} frames a second",
        "codebooks": f"{s.n_codebooks} of {s.codebook_size} entries",
        "bitrate": f"{s.bitrate / 1000:.2f} kbps",
        "licence": s.licence or "not stated",
        "revision": s.revision or "local",
        "weights": s.weight_hash,
    }
    if codec.side_names:
        facts["beside codes"] = ", ".join(codec.side_names)
    for key, value in facts.items():
        print(f"{key:12} {value}")


def _encode(args: argparse.Namespace) -> None:
    from tokgen.audio import read_audio
    from tokgen.codes_file import write_codes
    from tokgen.zoo import load_codec

    codec = load_codec(args.codec, device=_device(args.device))
    waveform, _ = read_audio(args.file, sample_rate=codec.spec.sample_rate)
    encoded = codec.encode_with_side(waveform[None], args.n_codebooks)
    codes, side = encoded.codes[0], {name: v[0] for name, v in encoded.side.items()}
    write_codes(args.out, codes, waveform.shape[-1], codec.spec, side)
    seconds = waveform.shape[-1] / codec.spec.sample_rate
    print(f"{args.out}: {codes.shape[0]} levels x {codes.shape[1]} frames, {seconds:.2f} s")


def _decode(args: argparse.Namespace) -> None:
    from tokgen.audio import write_audio
    from tokgen.codes_file import read_codes
    from tokgen.zoo import find_in_zoo, load_codec

    file = read_codes(args.file)
    if args.codec is None and find_in_zoo(file.codec) is None:
        raise ValueError(
            f"{args.file} was made by codec {file.codec!r}, which is not in the zoo: "
            "say where it is with --codec"
        )
    codec = load_codec(args.codec or file.codec, device=_device(args.device))
    file.check_codec(codec.spec)
    side = {name: values[None] for name, values in file.side.items()}
    waveform = codec.decode(file.codes[None], file.n_samples, side)[0].cpu()
    clipped = write_audio(args.out, waveform, codec.spec.sample_rate)
    if clipped:
        print(f"note: {clipped} samples outside [-1, 1] were clipped", file=sys.stderr)
    print(f"{args.out}: {waveform.shape[-1] / codec.spec.sample_rate:.2f} s")


def _corpus(args: argparse.Namespace) -> Corpus:
    from tokgen.corpus import open_corpus

    return open_corpus(
        args.corpus,
        split=args.split,
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
    )


def _tokenize(args: argparse.Namespace) -> None:
    from tokgen.corpus import open_corpus
    from tokgen.engines import Place
    from tokgen.tokenizing import tokenize_corpus
    from tokgen.zoo import load_codec

    place = Place.of(args.engine)
    codec = load_codec(args.codec, device=place.device or _device(args.device))
    corpus = open_corpus(
        args.corpus,
        streaming=args.streaming,
        split=args.split,
        require_text=args.require_text,
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
    )
    report = tokenize_corpus(
        corpus,
        codec,
        args.out,
        n_codebooks=args.n_codebooks,
        conditioning=None if args.conditioning == "none" else args.conditioning,
        batch_seconds=args.batch_seconds,
        shard_rows=args.shard_rows,
        shard_seconds=args.shard_seconds,
        engine=args.engine,
        workers=args.workers,
        precision=args.precision,
        format=args.format,
    )
    if not place.is_first:
        return
    if report.precision.measured:
        print(report.precision)
    _print_rejections(report.rejections, args.out)
    resumed = f" ({report.resumed_rows} of them from before)" if report.resumed_rows else ""
    print(
        f"{args.out}: {report.n_rows} rows{resumed}, {report.audio_seconds / 3600:.2f} h of audio, "
        f"{report.n_rejected} rejected, {report.wall_seconds:.1f} s"
    )


def _score(args: argparse.Namespace) -> None:
    from tokgen.audio import read_audio
    from tokgen.evaluate import score_codec
    from tokgen.runs import write_json
    from tokgen.scoring import check_metrics
    from tokgen.zoo import load_codec

    codec = load_codec(args.codec, device=_device(args.device))
    corpus = _corpus(args)
    reference = None
    if args.mos_reference is not None:
        reference, _ = read_audio(args.mos_reference, sample_rate=codec.spec.sample_rate)
    metrics = [name.strip() for name in args.metrics.split(",")]
    check_metrics(metrics)
    found = score_codec(
        codec, corpus, metrics=metrics, asr=args.asr, mos=args.mos, mos_reference=reference
    )
    print(found.table())
    if args.out is not None:
        write_json(
            args.out, {"codec": codec.spec.as_dict(), "corpus": corpus.name, **found.as_dict()}
        )


def _drift(args: argparse.Namespace) -> None:
    from tokgen.drift import DriftClips
    from tokgen.drift_compare import compare_drift
    from tokgen.zoo import load_roundtrip

    device = _device(args.device)
    clips = DriftClips(_corpus(args), args.clip_seconds or None, args.clips)
    codecs = [load_roundtrip(name, device=device) for name in args.codec]
    found = compare_drift(
        codecs,
        clips,
        args.out,
        passes=args.passes,
        match_level=args.match_level,
        phase=args.phase,
        n_samples=args.samples,
    )
    print(found.table())
    print(f"{args.out}: drift.json, drift.csv, drift.png" + (", phase.*" if args.phase else ""))


def _report(args: argparse.Namespace) -> None:
    from tokgen.report.encoding import AudioFormat
    from tokgen.report.page import write_report

    audio = AudioFormat(args.audio, args.opus_kbps)
    folder = args.runs[0] if len(args.runs) == 1 else Path()
    out = args.out or folder / "report.html"
    written = write_report(args.runs, out, n_clips=args.clips, audio=audio)
    for problem in written.problems[:SHOWN_REJECTIONS]:
        print(f"missing {problem}", file=sys.stderr)
    if len(written.problems) > SHOWN_REJECTIONS:
        rest = len(written.problems) - SHOWN_REJECTIONS
        print(f"... and {rest} more, listed in the page", file=sys.stderr)
    print(written)


def _print_rejections(rejections: Sequence[Rejection], out: str) -> None:
    for rejection in rejections[:SHOWN_REJECTIONS]:
        print(f"rejected {rejection.source}: {rejection.reason}", file=sys.stderr)
    if len(rejections) > SHOWN_REJECTIONS:
        rest = len(rejections) - SHOWN_REJECTIONS
        print(f"... and {rest} more, all in {out}/rejections.jsonl", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
