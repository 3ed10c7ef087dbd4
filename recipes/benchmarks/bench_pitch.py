"""Compare F0 trackers with WORLD on speech and its resynthesis by a codec.

    python recipes/benchmarks/bench_pitch.py

Each tracker runs on the test clips and on their resynthesis, with one thread. WORLD (DIO, refined
by StoneMask) runs with the tracker's own hop, so that no track is interpolated. Trackers that are
not installed are left out:

    pip install pyworld 'setuptools<81' pesto-pitch torchcrepe praat-parselmouth librosa

A table shows the frames with equal voicing, the RMSE over the frames that both call voiced, and the
share of these that differ by more than 20 %. A second table shows what the metric is for: the
errors between original and resynthesis, by each tracker.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.corpus.listed import open_corpus
from tokgen.metrics.pitch import F0_MAX, F0_MIN, HOP_SECONDS, pitch_errors, track_pitch
from tokgen.zoo.lookup import load_codec

RATE = 16000
Tracker = Callable[[Tensor], Tensor]  # audio [N] -> F0 in Hz [T], 0 in unvoiced frames


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="recipes/data/allison")
    parser.add_argument("--split", default="test")
    parser.add_argument("--codec", default="speech-16k")
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*pkg_resources")
    found = open_corpus(a.corpus, split=a.split).utterances(RATE, rejected=[])
    originals = [clip.waveform.flatten() for clip in found]
    resynthesis = resynthesise(a.codec, originals)
    seconds = sum(map(len, originals)) / RATE
    print(f"{len(originals)} clips of {a.corpus}, {seconds:.0f} s, resynthesised by {a.codec}")
    against, between = [], []
    for name, make in TRACKERS.items():
        try:
            tracker, hop = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
            continue
        tracker(originals[0])  # warm up
        began = time.perf_counter()
        tracks = [tracker(clip) for clip in originals]
        took = time.perf_counter() - began
        again = [tracker(clip) for clip in resynthesis]
        world = make_world(hop)[0]
        row: list[str] = [name, f"{1000 * hop:g} ms"]
        for clips, theirs in ((originals, tracks), (resynthesis, again)):
            row += summarise([world(clip) for clip in clips], theirs)
        against.append([*row, f"{60 * took / seconds:.2f} s"])
        voiced = np.mean([float((track > 0).double().mean()) for track in tracks])
        between.append([name, f"{100 * voiced:.1f} %", *summarise(tracks, again)])
        print(*against[-1], sep=", ", flush=True)
    error = ["equal voicing", "RMSE, cents", "gross"]
    header = ["tracker", "hop", *error, *(f"{e}, resynthesis" for e in error), "time per minute"]
    print("\nAgainst WORLD:\n\n" + tabulate(against, header, tablefmt="github"))
    header = ["tracker", "voiced", *error]
    print("\nOriginal and resynthesis:\n\n" + tabulate(between, header, tablefmt="github"))
    return 0


@torch.inference_mode()
def resynthesise(name: str, clips: Sequence[Tensor]) -> list[Tensor]:
    codec = load_codec(name)
    if codec.spec.sample_rate != RATE:
        raise SystemExit(f"{name} has {codec.spec.sample_rate} Hz; the trackers need {RATE}")
    return [codec.decode(codec.encode(c[None, None]))[0, 0, : len(c)] for c in clips]


def summarise(references: Sequence[Tensor], tracks: Sequence[Tensor]) -> list[str]:
    """The errors of all frames of all clips, in one."""
    pairs = [(r[: len(t)], t[: len(r)]) for r, t in zip(references, tracks, strict=True)]
    errors = pitch_errors(*(torch.cat(side).double() for side in zip(*pairs, strict=True)))
    agree, gross = 100 * (1 - errors.voicing_error), 100 * errors.gross_error
    return [f"{agree:.1f} %", f"{errors.f0_rmse_cents:.1f}", f"{gross:.2f} %"]


def make_metric() -> tuple[Tracker, float]:
    def track(audio: Tensor) -> Tensor:
        found = track_pitch(audio, RATE)
        assert found is not None
        return found

    return track, HOP_SECONDS


def make_world(hop: float = 0.01) -> tuple[Tracker, float]:
    import pyworld

    def track(audio: Tensor) -> Tensor:
        samples = (audio.double() - audio.double().mean()).numpy()
        limits: dict[str, Any] = {"f0_floor": F0_MIN, "f0_ceil": F0_MAX, "frame_period": 1000 * hop}
        f0, times = pyworld.dio(samples, RATE, **limits)
        return torch.from_numpy(pyworld.stonemask(samples, f0, times, RATE))

    return track, hop


def make_harvest() -> tuple[Tracker, float]:
    import pyworld

    def track(audio: Tensor) -> Tensor:
        samples = audio.double().numpy()
        f0, _ = pyworld.harvest(samples, RATE, f0_floor=F0_MIN, f0_ceil=F0_MAX, frame_period=10)
        return torch.from_numpy(f0)

    return track, 0.01


def make_pesto() -> tuple[Tracker, float]:
    import_torchaudio()
    from pesto import load_model

    model = load_model("mir-1k_g7", step_size=10.0, sampling_rate=RATE)

    @torch.inference_mode()
    def track(audio: Tensor) -> Tensor:
        f0, confidence = model(audio, convert_to_freq=True)[:2]
        voiced = (confidence >= 0.5) & (f0 >= F0_MIN) & (f0 <= F0_MAX)
        return torch.where(voiced, f0, 0.0)

    return track, 0.01


def make_crepe(capacity: str) -> tuple[Tracker, float]:
    import_torchaudio()
    import torchcrepe

    def track(audio: Tensor) -> Tensor:
        f0, periodicity = torchcrepe.predict(
            audio[None],
            RATE,
            160,
            F0_MIN,
            F0_MAX,
            capacity,
            return_periodicity=True,
            batch_size=512,
        )
        voiced = torchcrepe.filter.median(periodicity, 3) >= 0.21  # the package's own threshold
        return torch.where(voiced, f0, 0.0)[0]

    return track, 0.01


def make_praat() -> tuple[Tracker, float]:
    import parselmouth

    def track(audio: Tensor) -> Tensor:
        sound = parselmouth.Sound(audio.double().numpy(), RATE)
        pitch = sound.to_pitch_ac(time_step=0.01, pitch_floor=F0_MIN, pitch_ceiling=F0_MAX)
        times = 0.01 * np.arange(len(audio) // 160 + 1)
        f0 = [pitch.get_value_at_time(t, interpolation=parselmouth.ValueInterpolation.NEAREST)
              for t in times]  # fmt: skip
        return torch.tensor(f0, dtype=torch.float64).nan_to_num(0.0)

    return track, 0.01


def make_pyin() -> tuple[Tracker, float]:
    import librosa

    def track(audio: Tensor) -> Tensor:
        f0, voiced, _ = librosa.pyin(
            audio.numpy(), fmin=F0_MIN, fmax=F0_MAX, sr=RATE, frame_length=1024, hop_length=160
        )
        return torch.from_numpy(np.where(voiced, f0, 0.0))

    return track, 0.01


TRACKERS: dict[str, Callable[[], tuple[Tracker, float]]] = {
    "SwiftF0 (tokgen.metrics.pitch)": make_metric,
    "WORLD (DIO, StoneMask)": make_world,
    "WORLD (Harvest)": make_harvest,
    "Praat (autocorrelation)": make_praat,
    "pYIN (librosa)": make_pyin,
    "PESTO (mir-1k_g7)": make_pesto,
    "CREPE tiny (torchcrepe)": lambda: make_crepe("tiny"),
}

if __name__ == "__main__":
    raise SystemExit(main())
