"""Score clips with a pool of processes, compared with a plain loop over clips and libraries.

    python recipes/benchmarks/bench_scoring.py --clips 100 --rows 3

All rows hold the same utterances. The first row is the original, and each further row has more
noise. Both contenders compute PESQ, SI-SDR, DistillMOS, and moonshine's transcript and character
edits for every clip. The peer is what a user would write: torchmetrics, distillmos,
moonshine-voice and jiwer, one clip after another in this process, with torch's default threads.
Loading the models counts for both.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import Contender, alternate, write_report
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.corpus.listed import open_corpus
from tokgen.evaluation.rows import score_audio
from tokgen.extras import require
from tokgen.metrics.asr.base import MIN_SAMPLES
from tokgen.metrics.text import normalise_text

RATE = 16000
BAR_SECONDS = 180
Records = list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    a = parse(argv)
    rows, texts = make_rows(a)
    pooled: Records = []

    def check(ours: Records, theirs: Records) -> str:
        pooled.extend(ours)
        return check_records(ours, theirs)

    times = alternate(
        Contender("tokgen", our_job(rows, texts, a.workers)),
        Contender("a loop over clips", peer_job(rows, texts)),
        rounds=a.rounds,
        warmup=a.warmup,
        check=check,
        device=a.device,
    )
    seconds = sum(clip.shape[-1] for row in rows.values() for clip in row) / RATE
    took = times.medians["tokgen"]
    extra = {
        "settings": vars(a) | {"out": str(a.out)},
        "clips": f"{a.clips} x {a.rows} rows, {seconds:.0f} s of audio",
        "seconds for one clip": took / (a.clips * a.rows),
        "bar": f"{took:.1f} s of {BAR_SECONDS} s for 100 clips x 3 rows on 2 cores",
    }
    if a.alone:
        alone = our_job(rows, texts, 0)()
        extra["records of the pool equal to those of one process"] = repr(alone) == repr(pooled)
    write_report(a.out, "scoring", [times], extra)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that are not timed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--corpus", default="recipes/data/allison")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--workers", type=int, help="our processes; one per core by default")
    parser.add_argument("--alone", action="store_true", help="also compare with one process")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(argv)


def make_rows(a: argparse.Namespace) -> tuple[dict[str, list[Tensor]], list[str | None]]:
    """Pick utterances, repeating them if there are too few, and add rows with noise."""
    rejected: list[Any] = []
    found = []
    for clip in open_corpus(a.corpus).utterances(RATE, rejected=rejected):
        if clip.waveform.shape[-1] >= MIN_SAMPLES:  # tokgen pads shorter clips for the recogniser
            found.append(clip)
        if len(found) == a.clips:
            break
    if not found:
        raise SystemExit(f"error: no clip in {a.corpus}")
    picked = [found[i % len(found)] for i in range(a.clips)]
    generator = torch.Generator().manual_seed(0)
    originals = [clip.waveform for clip in picked]
    rows = {"original": originals}
    for n in range(1, a.rows):
        rows[f"noise {n}"] = [
            w + 0.005 * n * torch.randn(w.shape, generator=generator) for w in originals
        ]
    return rows, [clip.text for clip in picked]


def our_job(
    rows: dict[str, list[Tensor]], texts: list[str | None], workers: int | None
) -> Callable[[], Records]:
    def run() -> Records:
        scores = score_audio(
            rows,
            texts=texts,
            sample_rate=RATE,
            asr="moonshine",
            mos="distillmos",
            workers=workers,
            progress=False,
        )
        return scores.per_clip

    return run


def peer_job(rows: dict[str, list[Tensor]], texts: list[str | None]) -> Callable[[], Records]:
    import_torchaudio()  # distillmos imports torchaudio
    pesq, jiwer, distillmos = require("pesq"), require("jiwer"), require("distillmos")
    moonshine, utils = require("moonshine_voice"), require("moonshine_voice.utils")
    try:
        from torchmetrics.functional.audio import (
            perceptual_evaluation_speech_quality,
            scale_invariant_signal_distortion_ratio,
        )
    except ImportError as error:
        raise ModuleNotFoundError(
            "the peer needs torchmetrics: pip install 'tokgen[peers]'", name="torchmetrics"
        ) from error

    def run() -> Records:
        with contextlib.redirect_stdout(io.StringIO()):  # the constructor prints
            mos = distillmos.ConvTransformerSQAModel().eval()
        ears = moonshine.Transcriber(
            model_path=str(utils.get_model_path("tiny-en")),
            model_arch=moonshine.ModelArch.TINY,
            options={"vad_threshold": "0.0"},
        )
        records: Records = []
        for name, clips in rows.items():
            for i, (clip, reference) in enumerate(zip(clips, rows["original"], strict=True)):
                lines = ears.transcribe_without_streaming(clip[0].tolist(), RATE).lines
                heard = " ".join(line.text for line in lines)
                wanted = normalise_text(texts[i] or "")
                record: dict[str, Any] = {"row": name, "clip": i, "transcript": heard}
                if wanted:
                    out = jiwer.process_characters(wanted, normalise_text(heard))
                    errors = out.substitutions + out.deletions + out.insertions
                    record["edits"] = errors
                with torch.inference_mode():
                    record["mos"] = float(mos(clip))
                with contextlib.suppress(pesq.PesqError):
                    quality = perceptual_evaluation_speech_quality(clip, reference, RATE, "wb")
                    record["pesq"] = float(quality)
                record["si_sdr"] = float(
                    scale_invariant_signal_distortion_ratio(clip, reference, zero_mean=True)
                )
                records.append(record)
        return records

    return run


def check_records(ours: Records, theirs: Records) -> str:
    """Check that transcripts and edits are equal, and numbers equal up to rounding."""
    furthest = dict.fromkeys(("mos", "pesq", "si_sdr"), 0.0)
    if len(ours) != len(theirs):
        raise SystemExit(f"error: {len(ours)} records, but the loop has {len(theirs)}")
    for a, b in zip(ours, theirs, strict=True):
        for name in ("row", "clip", "transcript", "edits"):
            if name in b and a[name] != b[name]:
                raise SystemExit(f"error: {name} is {a[name]!r}, but the loop has {b[name]!r}")
        for name in furthest:
            if name == "si_sdr" and a["row"] == "original":
                continue  # infinite
            if name in b:
                furthest[name] = max(furthest[name], abs(a[name] - b[name]))
    if not max(furthest.values()) < 0.01:
        raise SystemExit(f"error: numbers differ by {furthest}")
    largest = ", ".join(f"{name} {value:.1g}" for name, value in furthest.items())
    return f"{len(ours)} records, transcripts and edits equal; largest differences {largest}"


if __name__ == "__main__":
    sys.exit(main())
