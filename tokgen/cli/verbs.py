"""What each verb of the `tokgen` command does: a call into the library, and what it prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokgen.corpus.listed import Corpus, Rejection

SHOWN_REJECTIONS = 10


def _device(name: str) -> str:
    import torch

    kind, _, index = name.partition(":")
    available = {"cpu": 1, "cuda": torch.cuda.device_count()}
    if kind not in available or not (index or "0").isdecimal():
        raise ValueError(f"device {name!r}: give cpu, cuda or cuda:<number>")
    if int(index or 0) >= available[kind]:
        raise ValueError(f"device {name!r}: this machine has {available[kind]} of {kind}")
    return name


def codecs(args: argparse.Namespace) -> None:
    from tokgen.zoo.lookup import list_codecs, zoo_folders

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


def info(args: argparse.Namespace) -> None:
    from tokgen.zoo.lookup import load_codec

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


def encode(args: argparse.Namespace) -> None:
    from tokgen.bitstream.codes_file import write_codes
    from tokgen.codec.long_audio import encode_file
    from tokgen.zoo.lookup import load_codec

    codec = load_codec(args.codec, device=_device(args.device))
    encoded, n_samples = encode_file(codec, args.file, args.n_codebooks)
    codes, side = encoded.codes[0], {name: v[0] for name, v in encoded.side.items()}
    write_codes(args.out, codes, n_samples, codec.spec, side)
    seconds = n_samples / codec.spec.sample_rate
    print(f"{args.out}: {codes.shape[0]} levels x {codes.shape[1]} frames, {seconds:.2f} s")


def decode(args: argparse.Namespace) -> None:
    from tokgen.bitstream.codes_file import read_codes
    from tokgen.codec.long_audio import decode_file
    from tokgen.zoo.lookup import find_in_zoo, load_codec

    file = read_codes(args.file)
    if args.codec is None and find_in_zoo(file.codec) is None:
        raise ValueError(
            f"{args.file} was made by codec {file.codec!r}, which is not in the zoo: "
            "say where it is with --codec"
        )
    codec = load_codec(args.codec or file.codec, device=_device(args.device))
    file.check_codec(codec.spec)
    side = {name: values[None] for name, values in file.side.items()}
    clipped = decode_file(codec, file.codes[None], file.n_samples, args.out, side)
    if clipped:
        print(f"note: {clipped} samples outside [-1, 1] were clipped", file=sys.stderr)
    print(f"{args.out}: {file.n_samples / codec.spec.sample_rate:.2f} s")


def _corpus(args: argparse.Namespace) -> Corpus:
    from tokgen.corpus.listed import open_corpus

    return open_corpus(
        args.corpus,
        split=args.split,
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
    )


def tokenize(args: argparse.Namespace) -> None:
    from tokgen.corpus.listed import open_corpus
    from tokgen.tokens.engines.run import Place
    from tokgen.tokens.tokenizing import tokenize_corpus
    from tokgen.zoo.lookup import load_codec

    place = Place.of(args.engine)
    on_cluster = args.engine == "ray"  # whose machines may have what this one lacks
    here = "cpu" if on_cluster else place.device or _device(args.device)
    codec = load_codec(args.codec, device=here)
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
        device=args.device if on_cluster else None,
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


def score(args: argparse.Namespace) -> None:
    from tokgen.audio.files import read_audio
    from tokgen.evaluation.metric import check_metrics
    from tokgen.evaluation.rows import score_codec
    from tokgen.runs.folder import write_json
    from tokgen.zoo.lookup import load_codec

    codec = load_codec(args.codec, device=_device(args.device))
    corpus = _corpus(args)
    reference = None
    if args.mos_reference is not None:
        reference, _ = read_audio(args.mos_reference, sample_rate=codec.spec.sample_rate)
    metrics = [name.strip() for name in args.metrics.split(",")]
    check_metrics(metrics)
    found = score_codec(
        codec,
        corpus,
        metrics=metrics,
        asr=args.asr,
        mos=args.mos,
        mos_reference=reference,
        workers=args.workers,
    )
    print(found.table())
    if args.out is not None:
        write_json(
            args.out, {"codec": codec.spec.as_dict(), "corpus": corpus.name, **found.as_dict()}
        )


def drift(args: argparse.Namespace) -> None:
    from tokgen.drift.compare import compare_drift
    from tokgen.drift.passes import DriftClips
    from tokgen.zoo.lookup import load_roundtrip

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


def report(args: argparse.Namespace) -> None:
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
