"""Small run folders, written by hand. Every string in them can be replaced."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.audio.files import write_audio

RATE = 16000
TONES = {"original": 300.0, "resynthesis": 600.0, "generated": 900.0}  # Hz of each kind
EDGE = 6000.0  # Hz, only in the original; a low anchor lacks it


def tone(hertz: float, seconds: float, amplitude: float = 0.2, rate: int = RATE) -> Tensor:
    """Make a sine [1, N]."""
    n = round(seconds * rate)
    return amplitude * torch.sin(2 * math.pi * hertz * torch.arange(n)[None] / rate)


def estimate(mean: float | None, half: float = 0.1, n: int = 18, n_failed: int = 0) -> dict:
    low, high = (None, None) if mean is None else (mean - half, mean + half)
    return {"mean": mean, "low": low, "high": high, "n": n, "n_failed": n_failed}


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def plain(text: str) -> str:
    return text


def make_run(
    folder: Path,
    *,
    say: Callable[[str], str] = plain,
    n_clips: int = 3,
    seconds: float = 0.6,
) -> Path:
    """Make a comparison run with table, cells, samples and telephone.

    Args:
        folder: folder of the run.
        say: maps each string to the one to write, for example to a hostile one.
        n_clips: number of utterances.
        seconds: length of each utterance.
    """
    codec, other = say("speech-16k"), say("other")
    names = [say("original"), f"{codec} resynthesis", f"{codec} generated"]
    spec = {
        "name": codec,
        "weight_hash": say("8dcc74f1"),
        "sample_rate": RATE,
        "licence": "CC0-1.0",
    }
    settings = {"steps": 1000, "corpus": say("allison"), "rates": [1, 2], "model": {"dim": None}}
    put(
        folder / "settings.json",
        {"settings": settings, "codec": spec, "versions": {"torch": say("2.13.0")}},
    )
    metrics = [
        {
            "name": say("pesq"),
            "label": say("PESQ"),
            "better": "higher",
            "unit": say("MOS"),
            "backend": say("pesq (P.862.2)"),
            "digits": 2,
        },
        {"name": "si_sdr", "label": "SI-SDR", "better": None, "unit": "dB", "digits": 1},
    ]
    values = [
        {say("pesq"): estimate(4.64, 0.0)},
        {say("pesq"): estimate(2.9), "si_sdr": estimate(11.8)},
        {say("pesq"): estimate(1.25, n=16, n_failed=2), "si_sdr": estimate(None, n=0, n_failed=18)},
    ]
    rows = [
        {"name": name, "kind": kind, "codec": None if kind == "original" else codec, "values": v}
        for name, kind, v in zip(names, TONES, values, strict=True)
    ]
    difference = {"row": names[2], "than": names[1], "metric": say("pesq"), **estimate(-1.65)}
    put(
        folder / "table.json",
        {
            "metrics": metrics,
            "rows": rows[::-1],
            "differences": [{**difference, "margin": 0.1, "verdict": say("worse")}],
            "notes": [say("Margins were set before the run.")],
        },
    )
    lines = [
        {"step": s, "loss": 7 - s / 50, "accuracy/level0": s / 200, "accuracy/level1": s / 400}
        | ({"validation/loss": 6.5, "validation/accuracy": 0.1} if s % 50 == 0 else {})
        for s in range(10, 101, 10)
    ]
    for cell in ("mfcc", "log mel"):
        history = folder / "cells" / cell / "history.jsonl"
        history.parent.mkdir(parents=True)
        history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    points = [{"round": n, **estimate(3.5 - 0.1 * n)} for n in range(1, 9)]
    put(
        folder / "telephone" / "telephone.json",
        {
            "rounds": 8,
            "settings": {"share": 0.2},
            "backends": {say("pesq_context"): say("pesq")},
            "curves": [
                {"codec": c, "metric": "pesq_context", "label": say("PESQ"), "points": points}
                for c in (codec, other)
            ],
        },
    )
    _samples(folder / "samples", names, codec, say, n_clips, seconds)
    return folder


def _samples(
    folder: Path,
    names: list[str],
    codec: str,
    say: Callable[[str], str],
    n_clips: int,
    seconds: float,
) -> None:
    clips = []
    for i in range(n_clips):
        files = {}
        for name, (kind, hertz) in zip(names, TONES.items(), strict=True):
            files[name] = f"{i:03d}.{kind}.wav"
            amplitude = 0.1 if kind == "generated" else 0.3
            wave = tone(hertz, seconds, amplitude)
            if kind == "original":
                wave = wave + tone(EDGE, seconds, 0.05)
            write_audio(folder / files[name], wave, RATE)
        text = None if i == 1 else say(f"utterance number {i}")
        clips.append({"id": say(f"clip{i}"), "text": text, "files": files})
    columns = [
        {"name": name, "kind": kind, "codec": None if kind == "original" else codec}
        for name, kind in zip(names, TONES, strict=True)
    ]
    put(folder / "index.json", {"sample_rate": RATE, "columns": columns, "clips": clips})


def make_drift(folder: Path, *, say: Callable[[str], str] = plain) -> Path:
    """Make a drift run of two codecs; the second has 24 kHz and no codes."""
    codecs, points = [say("speech-16k"), say("opus:12")], []
    for codec in codecs:
        metrics = ("pesq", "si_sdr_aligned", "match_previous", "codebook_use")
        known = metrics if codec == codecs[0] else metrics[:2]
        points.append(
            [
                {
                    "pass": n,
                    "metric": m,
                    "level": None,
                    **estimate(3 - 0.2 * n, n_failed=int(n == 3)),
                }
                for m in known
                for n in range(1, 6)
            ]
        )
    summaries = [
        {
            "name": codec,
            "spec": {"name": codec, "sample_rate": rate, "weight_hash": f"hash{rate}"},
            "bitrate": 4000.0,
            "delay": say("0 samples"),
            "delay_samples": 0,
            "n_clips": 18,
            "n_frames": 500,
            "points": p,
            "rejections": [say("bad.wav: empty")],
        }
        for codec, rate, p in zip(codecs, (RATE, 24000), points, strict=True)
    ]
    about = {"settings": {"passes": 5}, "versions": {}, "backends": {"pesq": say("pesq")}}
    difference = {"codec": codecs[1], "than": codecs[0], "passes": 5, "metric": "pesq"}
    differences = [{**difference, "estimate": estimate(0.4)}]
    put(folder / "drift.json", {**about, "codecs": summaries, "differences": differences})
    shifts = {"shifts": [-4, 4], "shifts_ms": [-0.25, 0.25]}
    matches = {"match": [estimate(0.1, 0.01)] * 2, "mean_match": estimate(0.1, 0.01)}
    phase = {"name": codecs[0], **shifts, **matches, "level_match": []}
    correlation = {"pairs": [[codecs[0], 0.1, 2.0]], "passes": 5, "r": None, "low": None}
    put(folder / "phase.json", {**about, "codecs": [phase], "correlation": correlation})
    return folder


def add_drift_audio(folder: Path, slugs: dict[str, int], seconds: float = 0.6) -> None:
    """Write original and passes 1 and 5 of two clips, for codec folders and their rates."""
    for slug, rate in slugs.items():
        for clip in ("a", "b"):
            for name, hertz in {"original": 300.0, "pass01": 600.0, "pass05": 900.0}.items():
                path = folder / "audio" / slug / clip / f"{name}.wav"
                write_audio(path, tone(hertz, seconds, rate=rate), rate)
