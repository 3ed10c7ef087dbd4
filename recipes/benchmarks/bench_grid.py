"""Measure how surely the frame grid of decoded audio is found, and how often where there is none.

    python recipes/benchmarks/bench_grid.py --corpus en.parquet --natural en.parquet music.parquet

Decoded audio goes through each way (rounding, MP3, ...); excerpts of it begin at a random sample.
The first table has, for each way and length of the excerpts, the share that was found, the share
with the exact offset, and the area under the ROC curve against natural excerpts of all lengths. The
second one has the scores and, for the shares, one-sided 95 % bounds by Clopper and Pearson. A last
line counts the natural excerpts in which a grid was found, and extrapolates the tail of their
scores, as if it were exponential. `--figure` draws the ROC curves.

A rate of 1 in 1,000 needs some 3,000 natural excerpts without an alarm. `--clips 0` measures only
natural excerpts. With `--keep`, the same command continues after an interruption, also with more of
them.

The bounds hold for independent excerpts. Natural excerpts are drawn with replacement, so take
corpora with many more seconds than `--excerpts`.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from ceilings import machine
from rates import highest_rate, lowest_rate
from tokgen.codec.base import Codec
from tokgen.codec.grid import THRESHOLD, find_grid
from tokgen.codec.identity import audio_key
from tokgen.codec.stable.transports import make_transport
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.plotting import new_figure, save_figure
from tokgen.runs.folder import write_json
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import RecordStore
from tokgen.zoo.lookup import load_codec

Row = dict[str, Any]
WAYS = ["none", "int16", "gain:6", "mp3:128", "mp3:64", "opus:64", "opus:24", "resample:44100"]
TAIL = 0.1  # share of the natural scores that the tail is fitted to


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", nargs="+", default=["speech-16k", "speech-16k-code"])
    parser.add_argument("--corpus", default="recipes/data/allison", help="to decode")
    parser.add_argument("--natural", nargs="+", default=["recipes/data/allison"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=20, help="random clips of --corpus, or 0")
    parser.add_argument("--excerpts", type=int, default=100, help="natural ones, of all corpora")
    parser.add_argument("--ways", nargs="+", default=WAYS, help="none, or as for StableDecoding")
    parser.add_argument("--lengths", nargs="+", type=float, default=[0.5, 1, 2, 5], help="seconds")
    parser.add_argument("--stable", action="store_true", help="decode stably")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="end the search of decoded audio after this"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder that keeps results of natural excerpts")
    parser.add_argument("--figure", type=Path, help=".png to write, with the ROC curves")
    parser.add_argument("--out", type=Path, help=".json file to write")
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in a.codecs:
        codec, noise = load_codec(name), random.Random(a.seed)
        corpora = {x: open_corpus(x, split=a.split) for x in a.natural}
        store = None
        if a.keep is not None:
            plan = [audio_key(codec), {x: c.fingerprint for x, c in corpora.items()}]
            store = RecordStore(a.keep, f"{name}-natural", [*plan, a.lengths, a.seed, THRESHOLD])
        rows = list(natural(codec, corpora, a.excerpts, a.lengths, noise, store))
        until = time.monotonic() + 60 * a.minutes
        source = open_corpus(a.corpus, split=a.split)
        clips = draw(codec, source, a.clips, max(a.lengths), noise)
        for row in decoded(codec, clips, a.ways, a.lengths, noise, stable=a.stable):
            rows.append(row)
            if time.monotonic() > until:
                break
        print(f"\n{name}, {'stable' if a.stable else 'plain'} decoding")
        for text in (show(rows, a.ways), show_scores(rows, a.ways), show_natural(rows)):
            print(f"\n{text}", flush=True)
        found[name] = rows
    if a.figure is not None:
        plot_roc(found, a.ways, a.figure)
    if a.out is not None:
        about = {"threshold": THRESHOLD, "split": a.split, "seed": a.seed, "stable": a.stable}
        write_json(a.out, about | {"machine": machine(), "rows": found})
    return 0


def draw(
    codec: Codec, corpus: Corpus, n: int, seconds: float, noise: random.Random
) -> Iterator[Tensor]:
    """Yield up to n random clips [1, 1, N] longer than `seconds` by half a second or more."""
    if not n:
        return
    entries = sorted(corpus.entries, key=lambda entry: entry.id)
    rate = codec.spec.sample_rate
    order = noise.sample(entries, len(entries))
    with progress_bar("clips", total=n, unit="clip") as bar:
        for entry in order:
            waveform = corpus.load(entry, rate).waveform.reshape(1, 1, -1)
            if waveform.shape[-1] > (seconds + 0.5) * rate:
                yield waveform[..., : round((seconds + 3) * rate)]
                bar.update(1)
                n -= 1
            if not n:
                return


def natural(
    codec: Codec,
    corpora: dict[str, Corpus],
    n: int,
    lengths: Sequence[float],
    noise: random.Random,
    store: RecordStore | None = None,
) -> Iterator[Row]:
    """Yield results of n excerpts that no codec decoded, corpora and lengths in turn."""
    rate = codec.spec.sample_rate
    names, done = list(corpora), [] if store is None else list(store.records)
    for i in progress_bar("natural", range(n), unit="clip"):
        corpus, seconds = names[i % len(names)], lengths[i // len(names) % len(lengths)]
        size, waveform = round(seconds * rate), torch.empty(1, 0)
        for _ in range(1000):  # clips may be shorter
            entry = noise.choice(corpora[corpus].entries)
            waveform = corpora[corpus].load(entry, rate).waveform.reshape(1, -1)
            if waveform.shape[-1] >= size:
                break
        else:
            continue
        start = noise.randrange(waveform.shape[-1] - size + 1)
        if done:  # drawn again, so that those after it are the same
            yield done.pop(0)
            continue
        row = search(codec, waveform[:, start : start + size], None)
        row |= {"way": None, "seconds": seconds, "corpus": corpus}
        if store is not None:
            store.append(row)
        yield row


def decoded(
    codec: Codec,
    clips: Iterator[Tensor],
    ways: Sequence[str],
    lengths: Sequence[float],
    noise: random.Random,
    *,
    stable: bool,
) -> Iterator[Row]:
    """Yield results of excerpts of clips [1, 1, N] that the codec decoded."""
    rate, hop = codec.spec.sample_rate, codec.spec.hop_length
    generator = torch.Generator().manual_seed(noise.randrange(1 << 30))
    for clip in clips:
        codes = codec.encode(clip)
        if stable:
            audio = codec.decode(codes, clip.shape[-1], stable=True).waveform
        else:
            audio = codec.decode(codes, clip.shape[-1])
        for seconds, way in product(lengths, ways):
            carry: Callable[..., Tensor] = make_transport(way, rate) if way != "none" else _same
            carried, size = carry(audio, generator), round(seconds * rate)
            start = noise.randrange(hop, carried.shape[-1] - size + 1)
            piece = carried[0, :, start : start + size]
            yield search(codec, piece, -start % hop) | {"way": way, "seconds": seconds}


def _same(audio: Tensor, noise: torch.Generator) -> Tensor:
    return audio


def search(codec: Codec, audio: Tensor, offset: int | None) -> Row:
    began = time.process_time()
    found = find_grid(audio, codec)
    return {
        "score": found.score,
        "found": found.found,
        "exact": found.found and found.offset == offset,
        "cpu": time.process_time() - began,
    }


def roc(positive: Sequence[float], negative: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of negative and of positive scores at or above each threshold, ascending.

    Thresholds are all scores from the highest to the lowest, after one that no score reaches.
    """
    steps = np.unique([*positive, *negative])[::-1]
    false, true = ((np.asarray(x)[:, None] >= steps).mean(0) for x in (negative, positive))
    return np.append(0, false), np.append(0, true)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the share of pairs in which the positive score is the higher one."""
    above = np.subtract.outer(positive, negative)
    return float(((above > 0) + 0.5 * (above == 0)).mean()) if above.size else math.nan


def show(rows: Sequence[Row], ways: Sequence[str]) -> str:
    """Format found / exact / AUC of each way and length."""
    lengths, lines = lengths_of(rows), []
    others = [row["score"] for row in rows if row["way"] is None]
    for way in ways:
        line = [way]
        for seconds in lengths:
            cell = [r for r in rows if r["way"] == way and r["seconds"] == seconds]
            if not cell:
                line.append("–")
                continue
            shares = [np.mean([r[key] for r in cell]) for key in ("found", "exact")]
            area = auc([r["score"] for r in cell], others)
            line.append(" / ".join(f"{x:.2f}" for x in shares) + f" / {area:.2f} (n {len(cell)})")
        lines.append(line)
    heads = [f"{seconds:g} s" for seconds in lengths]
    return tabulate(lines, ["way", *heads], tablefmt="github", disable_numparse=True)


def show_scores(rows: Sequence[Row], ways: Sequence[str]) -> str:
    """Format the scores of each way, all lengths together, and of natural excerpts."""
    lines = []
    for way in (*ways, None):
        cell = [row for row in rows if row["way"] == way]
        if not cell:
            continue
        n, n_found, n_exact = len(cell), *(sum(r[key] for r in cell) for key in ("found", "exact"))
        scores = [row["score"] for row in cell]
        if way is None:
            shares = [f"{n_found / n:.2f} (at most {highest_rate(n_found, n):.3f})", "–"]
        else:
            shares = [f"{k / n:.2f} (at least {lowest_rate(k, n):.2f})" for k in (n_found, n_exact)]
        ends = [f"{f(scores):.1f}" for f in (np.min, np.median, np.max)]
        lines.append(["natural" if way is None else way, str(n), *shares, " / ".join(ends)])
    head = ["way", "n", "found", "exact offset", "score: lowest / median / highest"]
    return tabulate(lines, head, tablefmt="github", disable_numparse=True)


def show_natural(rows: Sequence[Row]) -> str:
    """Format the false alarms, the highest scores and the tail of natural audio, and the time."""
    scores = np.sort([r["score"] for r in rows if r["way"] is None])
    alarms = sum(r["found"] for r in rows if r["way"] is None)
    n = len(scores)
    upper = highest_rate(alarms, n)
    tail = "too few to extrapolate"
    if n >= 2 / TAIL:
        top = scores[-round(TAIL * n) :]
        scale = (top - top[0]).mean()  # of an exponential tail
        rate = len(top) / n * math.exp(-(THRESHOLD - top[0]) / scale)
        tail = f"extrapolated rate {rate:.1e}"
    cpu = {s: np.mean([r["cpu"] for r in rows if r["seconds"] == s]) for s in lengths_of(rows)}
    times = ", ".join(f"{value:.2f} s for {seconds:g} s" for seconds, value in cpu.items())
    return (
        f"Natural: {alarms} of {n} found (at most {100 * upper:.2f} % with 95 % confidence), "
        f"highest score {scores.max(initial=-math.inf):.1f} of threshold {THRESHOLD:g}, {tail}. "
        f"Processor time: {times}."
    )


def plot_roc(found: dict[str, list[Row]], ways: Sequence[str], path: Path) -> None:
    """Plot one panel for each codec, with a curve for each way and length of excerpts."""
    figure = new_figure(5 * len(found), 4.5)
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        natural_scores = [row["score"] for row in rows if row["way"] is None]
        for way, seconds in product(ways, lengths_of(rows)):
            cell = [r["score"] for r in rows if (r["way"], r["seconds"]) == (way, seconds)]
            if cell:
                label = f"{way}, {seconds:g} s (n {len(cell)})"
                axes.plot(*roc(cell, natural_scores), drawstyle="steps-post", label=label)
        axes.set(title=name, xlabel=f"false alarms (n {len(natural_scores)})", ylabel="found")
        axes.legend(fontsize=6, ncols=2)
    save_figure(figure, path)


def lengths_of(rows: Sequence[Row]) -> list[float]:
    return sorted({row["seconds"] for row in rows})


if __name__ == "__main__":
    raise SystemExit(main())
