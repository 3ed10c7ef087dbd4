"""Run each verb of the `tokgen` command: call the library, and print the result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tokgen.cli import settings

if TYPE_CHECKING:
    from tokgen.corpus.listed import Corpus

SHOWN_PROBLEMS = 10


def _device(name: str) -> str:
    import torch

    kind, _, index = name.partition(":")
    available = {"cpu": 1, "cuda": torch.cuda.device_count()}
    if kind not in available or not (index or "0").isdecimal():
        raise ValueError(f"device {name!r}: give cpu, cuda or cuda:<number>")
    if int(index or 0) >= available[kind]:
        raise ValueError(f"device {name!r}: this machine has {available[kind]} of {kind}")
    return name


def codecs(s: settings.Codecs) -> None:
    from tokgen.results import align
    from tokgen.zoo.lookup import list_codecs, zoo_folders

    cards = list_codecs()
    if not cards:
        places = ", ".join(str(place) for place in zoo_folders()) or "no folder"
        print(f"no codecs in {places}: set TOKGEN_ZOO, or name a folder or a hub id")
        return
    rows = [("name", "rate", "hop", "frames/s", "codebooks", "kbps", "licence", "summary")]
    for card in cards:
        spec = card.spec
        codebooks, kbps = f"{spec.n_codebooks} x {spec.codebook_size}", f"{spec.bitrate / 1000:.2f}"
        numbers = (f"{spec.sample_rate}", f"{spec.hop_length}", f"{spec.frame_rate:g}")
        rows.append((card.name, *numbers, codebooks, kbps, spec.licence, card.summary))
    print(align(rows))


def info(s: settings.Info) -> None:
    from tokgen.zoo.lookup import load_codec

    codec = load_codec(s.codec, revision=s.revision)
    spec = codec.spec
    n_parameters = sum(p.numel() for p in codec.model.parameters())
    facts = {
        "name": spec.name,
        "network": f"{type(codec.model).__name__} of {spec.library}",
        "parameters": f"{n_parameters / 1e6:.2f}M",
        "sample rate": f"{spec.sample_rate} Hz",
        "hop length": f"{spec.hop_length} samples, {spec.frame_rate:g} frames a second",
        "codebooks": f"{spec.n_codebooks} of {spec.codebook_size} entries",
        "bitrate": f"{spec.bitrate / 1000:.2f} kbps",
        "licence": spec.licence or "not stated",
        "revision": spec.revision or "local",
        "weights": spec.weight_hash,
    }
    if codec.side_names:
        facts["side values"] = ", ".join(codec.side_names)
    for key, value in facts.items():
        print(f"{key:12} {value}")


def encode(s: settings.Encode) -> None:
    from tokgen.bitstream.codes_file import write_codes
    from tokgen.codec.long_audio import encode_file
    from tokgen.zoo.lookup import load_codec

    codec = load_codec(s.codec, device=_device(s.device))
    encoded, n_samples = encode_file(codec, s.file, s.n_codebooks)
    codes, side = encoded.codes[0], {name: v[0] for name, v in encoded.side.items()}
    write_codes(s.out, codes, n_samples, codec.spec, side)
    seconds = n_samples / codec.spec.sample_rate
    print(f"{s.out}: {codes.shape[0]} levels x {codes.shape[1]} frames, {seconds:.2f} s")


def decode(s: settings.Decode) -> None:
    from tokgen.bitstream.codes_file import read_codes
    from tokgen.codec.long_audio import decode_file
    from tokgen.zoo.lookup import find_in_zoo, load_codec

    file = read_codes(s.file)
    if s.codec is None and find_in_zoo(file.codec) is None:
        raise ValueError(
            f"{s.file} was made by codec {file.codec!r}, which is not in the zoo: "
            "name its folder or hub id with --codec"
        )
    codec = load_codec(s.codec or file.codec, device=_device(s.device))
    file.check_codec(codec.spec)
    side = {name: values[None] for name, values in file.side.items()}
    clipped = decode_file(codec, file.codes[None], file.n_samples, s.out, side)
    if clipped:
        print(f"note: {clipped} samples outside [-1, 1] were clipped", file=sys.stderr)
    print(f"{s.out}: {file.n_samples / codec.spec.sample_rate:.2f} s")


def _corpus(s: settings.CorpusSettings) -> Corpus:
    from tokgen.corpus.listed import open_corpus

    return open_corpus(
        s.corpus, split=s.split, min_seconds=s.min_seconds, max_seconds=s.max_seconds
    )


def tokenize(s: settings.Tokenize) -> None:
    from tokgen.corpus.listed import open_corpus
    from tokgen.tokens.engines.run import Place
    from tokgen.tokens.tokenizing import tokenize_corpus
    from tokgen.zoo.lookup import load_codec

    place = Place.of(s.engine)
    on_cluster = s.engine == "ray"  # its machines may have devices that this one lacks
    here = "cpu" if on_cluster else place.device or _device(s.device)
    codec = load_codec(s.codec, device=here)
    corpus = open_corpus(
        s.corpus,
        streaming=s.streaming,
        split=s.split,
        require_text=s.require_text,
        min_seconds=s.min_seconds,
        max_seconds=s.max_seconds,
    )
    report = tokenize_corpus(
        corpus,
        codec,
        s.out,
        n_codebooks=s.n_codebooks,
        conditioning=None if s.conditioning == "none" else s.conditioning,
        batch_seconds=s.batch_seconds,
        shard_rows=s.shard_rows,
        shard_seconds=s.shard_seconds,
        engine=s.engine,
        workers=s.workers,
        precision=s.precision,
        device=s.device if on_cluster else None,
        format=s.format,
    )
    if not place.is_first:
        return
    if report.precision.measured:
        print(report.precision)
    rejected = [f"rejected {r.source}: {r.reason}" for r in report.rejections]
    _show(rejected, f"all in {s.out}/rejections.jsonl")
    resumed = f" ({report.resumed_rows} of them from before)" if report.resumed_rows else ""
    print(
        f"{s.out}: {report.n_rows} rows{resumed}, "
        f"{report.audio_seconds / 3600:.2f} h of audio, {report.n_rejected} rejected, "
        f"{report.wall_seconds:.1f} s"
    )


def score(s: settings.Score) -> None:
    from tokgen.audio.files import read_audio
    from tokgen.evaluation.metric import check_metrics
    from tokgen.evaluation.rows import score_codec
    from tokgen.runs.folder import write_json
    from tokgen.zoo.lookup import load_codec

    codec = load_codec(s.codec, device=_device(s.device))
    corpus = _corpus(s)
    reference = None
    if s.mos_reference is not None:
        reference, _ = read_audio(s.mos_reference, sample_rate=codec.spec.sample_rate)
    metrics = [name.strip() for given in s.metrics for name in given.split(",")]
    check_metrics(metrics)
    found = score_codec(
        codec,
        corpus,
        metrics=metrics,
        asr=s.asr,
        mos=s.mos,
        mos_reference=reference,
        workers=s.workers,
    )
    print(found)
    if s.out is not None:
        write_json(s.out, found.to_dict())


def drift(s: settings.Drift) -> None:
    from tokgen.drift.compare import measure_drift

    device = _device(s.device)
    found = measure_drift(
        s.codec,
        _corpus(s),
        s.out,
        device=device,
        passes=s.passes,
        clip_seconds=s.clip_seconds,
        clips=s.clips,
        match_level=s.match_level,
        phase=s.phase,
        samples=s.samples,
    )
    print(found)
    print(f"{s.out}: drift.json, drift.csv, drift.png" + (", phase.*" if s.phase else ""))


def report(s: settings.Report) -> None:
    from tokgen.report.encoding import AudioFormat
    from tokgen.report.page import write_report

    audio = AudioFormat(s.audio, s.opus_kbps)
    folder = s.runs[0] if len(s.runs) == 1 else Path()
    out = s.out or folder / "report.html"
    written = write_report(s.runs, out, n_clips=s.clips, audio=audio)
    _show([f"missing {problem}" for problem in written.problems], "listed in the page")
    print(written)


def _show(problems: list[str], source: str) -> None:
    for problem in problems[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"... and {len(problems) - SHOWN_PROBLEMS} more, {source}", file=sys.stderr)
