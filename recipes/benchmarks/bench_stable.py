"""Measure what stable decoding keeps, costs and changes, against plain decoding of the same codes.

    python recipes/benchmarks/bench_stable.py --codecs speech-16k,speech-16k-code \\
        --corpus en.parquet,es.parquet,fr.parquet,it.parquet --clips 119 --min_seconds 1

The first table shows the share of codes that come back when the decoded audio is encoded again, the
steps of the search, the level of the change and the time. The second shows the quality of both
against the original audio, with differences paired by clip. The third shows the codes that come
back after the audio has been rounded, resampled or coded by MP3 or Opus on its way.

Clips are spread evenly over the split and cut to their first seconds. Records of clips are kept in
the folder of `--out`, so that the same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import ast
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from ceilings import machine
from stable_tables import MEL, tables
from tokgen.audio.files import AudioError
from tokgen.codec.base import Codec
from tokgen.codec.identity import audio_key
from tokgen.codec.stable.settings import StableDecoding
from tokgen.codec.stable.transports import make_transport
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.evaluation.metric import parse_metrics
from tokgen.evaluation.reasons import why_no_text
from tokgen.evaluation.scorer import Scorer
from tokgen.metrics.pesq import measure_pesq
from tokgen.nn.spectral_losses import MultiScaleMel
from tokgen.plotting import plot_spectrograms
from tokgen.runs.folder import write_json
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import RecordStore
from tokgen.zoo.lookup import load_codec

TRANSPORTS = (
    *("int16", "dither", "gain:1", "gain:6", "resample:44100", "resample:8000"),
    *("opus:64", "opus:24", "mp3:128", "mp3:64"),
)
DRAWS = 3  # of random transports
SEED = 1000  # of transports in the measurement, which the search has not seen
Record = dict[str, Any]


@dataclass(frozen=True)
class Clip:
    """A clip to decode: waveform [1, 1, N], and its transcript if it can have a CER."""

    id: str
    waveform: Tensor
    text: str | None


def main(argv: Sequence[str] | None = None) -> int:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    settings = make_settings(a.settings, a.robust_to)
    metrics = parse_metrics(a.metrics)
    scorer = Scorer(metrics, asr=a.asr, mos=a.mos, device="cpu")
    corpus = open_corpus(a.corpus, split=a.split).select(min_seconds=a.min_seconds)
    corpus = spread(corpus, a.clips)
    few = spread(corpus, a.transport_clips) if a.transport_clips else None
    found: dict[str, Any] = {}
    for name in a.codecs.split(","):
        codec = load_codec(name)
        plan = [audio_key(codec), asdict(settings), a.seconds]
        clips = list(read_clips(codec, corpus, a.seconds, scorer.languages))
        if a.figure is not None and not found:
            plot_difference(codec, clips[0], settings, a.figure)
        seconds = sum(x.waveform.shape[-1] for x in clips) / codec.spec.sample_rate
        print(f"{len(clips)} clips of {a.corpus}, {seconds:.0f} s, by {name}", flush=True)
        store = RecordStore(a.out, name, [*plan, corpus.fingerprint, scorer.backends, a.threads])
        one = ClipBench(codec, settings, scorer)
        found[name] = {"clips": collect(clips, store, one.measure, name)}
        if few is not None:
            store = RecordStore(a.out, f"{name}-way", [*plan, few.fingerprint, a.transports])
            way = Journeys(codec, settings, a.transports.split(","))
            some = list(read_clips(codec, few, a.seconds, ()))
            found[name]["transports"] = collect(some, store, way.measure, f"{name}, transports")
    text = tables(found, metrics, a.threads, settings.robust_to)
    about = {k: v for k, v in vars(a).items() if k not in ("out", "figure")}
    about |= {"stable": asdict(settings), "machine": machine(), "backends": scorer.backends}
    write_json(a.out / "stable.json", about | {"codecs": found})
    (a.out / "stable.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", default="speech-16k,speech-16k-code", help="joined by commas")
    parser.add_argument("--corpus", default="recipes/data/allison", help="joined by commas")
    parser.add_argument("--split", default="test")
    parser.add_argument("--min_seconds", type=float, help="leave out shorter clips")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each clip; 0 for all")
    parser.add_argument("--clips", type=int, help="spread over the split; all by default")
    parser.add_argument("--metrics", default="pesq,si_sdr,mos", help="of tokgen score")
    parser.add_argument("--mos", default="distillmos")
    parser.add_argument("--asr", default="moonshine")
    parser.add_argument("--robust_to", help="transports of the search, joined by commas")
    parser.add_argument("--settings", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--transports", default=",".join(TRANSPORTS), help="of the third table")
    parser.add_argument("--transport_clips", type=int, default=8, help="0 for no third table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/stable"), help="folder to write")
    parser.add_argument("--figure", type=Path, help=".png to write, with the first clip")
    return parser.parse_args(argv)


def make_settings(pairs: Sequence[str], robust_to: str | None) -> StableDecoding:
    """Make settings from texts such as "steps=60"."""
    known = [f.name for f in fields(StableDecoding)]
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known or not value:
            raise ValueError(f"--settings {pair}: must be NAME=VALUE with {', '.join(known)}")
        values[name] = ast.literal_eval(value)
    if robust_to is not None:
        values["robust_to"] = tuple(filter(None, robust_to.split(",")))
    return StableDecoding(**values)


def spread(corpus: Corpus, n: int | None) -> Corpus:
    """Select n entries, evenly spread over the corpus; all if n is None or there are fewer."""
    size = len(corpus)
    if n is None or n >= size:
        return corpus
    return corpus.select(ids=[corpus.entries[i * size // n].id for i in range(n)])


def read_clips(
    codec: Codec, corpus: Corpus, seconds: float, languages: Sequence[str]
) -> Iterator[Clip]:
    """Yield the clips of a corpus. A clip that was cut has no text."""
    rate = codec.spec.sample_rate
    clips = DriftClips(corpus, seconds or None)
    for i, entry in enumerate(clips.corpus.entries):
        try:
            waveform = clips.load(i, rate)
        except AudioError as error:
            print(f"left out {entry.id}: {error.reason}")
            continue
        whole = not seconds or waveform.shape[-1] < round(seconds * rate)
        speaks = whole and not why_no_text("cer", entry.text, entry.language, languages)
        yield Clip(entry.id, waveform[None], entry.text if speaks else None)


def collect(
    clips: Sequence[Clip], store: RecordStore, measure: Callable[[Clip], Record], label: str
) -> list[Record]:
    """Measure the clips that have no record yet."""
    records = list(store.records[: len(clips)])
    for clip in progress_bar(label, clips[len(records) :], unit="clip"):
        records.append({"id": clip.id, **measure(clip)})
        store.append(records[-1])
    return records


def same(a: Tensor, b: Tensor) -> float:
    """Return the share of equal codes."""
    return (a == b).double().mean().item()


class ClipBench:
    """Decodes clips plainly and stably, and scores both against the original."""

    def __init__(self, codec: Codec, settings: StableDecoding, scorer: Scorer) -> None:
        self.codec, self.settings, self.scorer = codec, settings, scorer
        self.mel = MultiScaleMel(codec.spec.sample_rate).eval()
        self.rounded = make_transport("int16", codec.spec.sample_rate)
        codec.roundtrip(torch.zeros(1, 1, codec.spec.sample_rate))  # warm up

    def measure(self, clip: Clip) -> Record:
        codec, n = self.codec, clip.waveform.shape[-1]
        times = [_clocks()]
        codes = codec.encode(clip.waveform)
        plain = codec.decode(codes, n)
        times.append(_clocks())
        stable, reached = codec.decode(codes, n, stable=self.settings)
        times.append(_clocks())
        record: Record = {
            "seconds": n / codec.spec.sample_rate,
            "steps": reached.steps.item(),
            "snr_db": reached.snr_db.item(),
            "load": psutil.getloadavg()[0],
        }
        for name, audio, i in (("plain", plain, 0), ("stable", stable, 1)):
            record[name] = {
                "kept": same(codec.encode(audio), codes),
                "kept16": same(codec.encode(self.rounded(audio, torch.Generator())), codes),
                "wall": times[i + 1][0] - times[i][0],
                "cpu": times[i + 1][1] - times[i][1],
                "scores": self._score(audio, clip),
            }
        if "pesq" in self.scorer.metrics:
            record["pesq_of_change"] = _pesq(plain, stable, codec.spec.sample_rate)
        return record

    def _score(self, audio: Tensor, clip: Clip) -> Record:
        rate = self.codec.spec.sample_rate
        found = self.scorer.score(audio[0], clip.waveform[0], clip.text, rate)
        with torch.inference_mode():
            return found | {MEL: self.mel(audio, clip.waveform).item()}


def _pesq(reference: Tensor, audio: Tensor, sample_rate: int) -> float:
    return measure_pesq(reference[0], audio[0], sample_rate).value


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class Journeys:
    """Counts the codes that come back after each transport: of audio decoded plainly, stably, and
    with the transport in `robust_to` as well."""

    def __init__(self, codec: Codec, settings: StableDecoding, names: Sequence[str]) -> None:
        self.codec, self.settings = codec, settings
        self.carry = {name: make_transport(name, codec.spec.sample_rate) for name in names}

    def measure(self, clip: Clip) -> Record:
        codec, n, rate = self.codec, clip.waveform.shape[-1], self.codec.spec.sample_rate
        codes = codec.encode(clip.waveform)
        plain = codec.decode(codes, n)
        stable = codec.decode(codes, n, stable=self.settings).waveform
        before = _pesq(clip.waveform, plain, rate)
        record = {}
        for name in self.carry:
            wanted = tuple(dict.fromkeys([*self.settings.robust_to, name]))
            robust, reached = stable, None
            if wanted != self.settings.robust_to:
                chosen = replace(self.settings, robust_to=wanted)
                robust, reached = codec.decode(codes, n, stable=chosen)
            record[name] = {
                "plain": self._kept(plain, codes, name),
                "stable": self._kept(stable, codes, name),
                "robust": self._kept(robust, codes, name),
                "snr_db": _level(plain, robust) if reached is None else reached.snr_db.item(),
                "pesq": _pesq(clip.waveform, robust, rate) - before,
            }
        return record

    def _kept(self, audio: Tensor, codes: Tensor, name: str) -> float:
        noise = torch.Generator().manual_seed(SEED)
        draws = DRAWS if name.startswith(("dither", "gain")) else 1
        carry = self.carry[name]
        return float(
            np.mean([same(self.codec.encode(carry(audio, noise)), codes) for _ in range(draws)])
        )


def _level(plain: Tensor, changed: Tensor) -> float:
    power = plain.double().square().sum() / (changed - plain).double().square().sum()
    return 10 * math.log10(power)


def plot_difference(codec: Codec, clip: Clip, settings: StableDecoding, path: Path) -> None:
    """Plot plain audio, stable audio and their difference on one colour scale."""
    codes, n = codec.encode(clip.waveform), clip.waveform.shape[-1]
    plain = codec.decode(codes, n)
    stable = codec.decode(codes, n, stable=settings).waveform
    shown = {"plain": plain[0], "stable": stable[0], "stable minus plain": (stable - plain)[0]}
    plot_spectrograms(shown, codec.spec.sample_rate, path)


if __name__ == "__main__":
    raise SystemExit(main())
