"""Measure how well the parts of spliced audio are found, and where their borders are put.

    python recipes/benchmarks/bench_splices.py --corpus corpora --split test --splices 20

Each splice joins two pieces of random clips: two that the codec decoded, or one of these and one
that it did not. Decoded pieces begin at a random sample. A splice counts as found if `find_grids`
divides it into these two parts, each with its exact grid or none. Borders are compared in frames.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from ceilings import machine
from rates import lowest_rate
from tokgen.codec.base import Codec
from tokgen.codec.grid_segments import find_grids
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.runs.folder import write_json
from tokgen.runs.progress import progress_bar
from tokgen.zoo.lookup import load_codec

KINDS = {"decoded, decoded": (True, True), "decoded, natural": (True, False),
         "natural, decoded": (False, True)}  # fmt: skip
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", nargs="+", default=["speech-16k", "speech-16k-code"])
    parser.add_argument("--corpus", default="recipes/data/allison", help="joined by commas")
    parser.add_argument("--split", default="test")
    parser.add_argument("--splices", type=int, default=20, help="of each kind")
    parser.add_argument("--shortest", type=float, default=1.5, help="seconds of a piece, at least")
    parser.add_argument("--longest", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help=".json file to write")
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    corpus = open_corpus(a.corpus, split=a.split).select(min_seconds=a.longest + 0.1)
    found: dict[str, list[Row]] = {}
    for name in a.codecs:
        codec = load_codec(name, device="cpu")
        rows = splices(codec, corpus, a.splices, (a.shortest, a.longest), random.Random(a.seed))
        total = a.splices * len(KINDS)
        found[name] = list(progress_bar(name, rows, total=total, unit="splice"))
        print(f"\n{name}, clips of {a.corpus}\n\n{table(found[name])}", flush=True)
    if a.out is not None:
        write_json(a.out, {"machine": machine(), "settings": vars(a) | {"out": ""}, "rows": found})
    return 0


def splices(
    codec: Codec, corpus: Corpus, n: int, seconds: tuple[float, float], noise: random.Random
) -> Iterator[Row]:
    """Yield the results of n splices of each kind."""
    hop, rate = codec.spec.hop_length, codec.spec.sample_rate
    entries = sorted(corpus.entries, key=lambda entry: entry.id)
    for _ in range(n):
        for kind, decoded in KINDS.items():
            pieces, offsets = [], []
            for is_decoded, entry in zip(decoded, noise.sample(entries, 2), strict=True):
                size = round(noise.uniform(*seconds) * rate)
                waveform = corpus.load(entry, rate).waveform.reshape(1, 1, -1)
                start = noise.randrange(waveform.shape[-1] - size + 1)
                audio = codec.roundtrip(waveform) if is_decoded else waveform
                before = sum(piece.shape[-1] for piece in pieces)
                pieces.append(audio[0, 0, start : start + size])
                offsets.append((before - start) % hop if is_decoded else None)
            yield {"kind": kind} | search(codec, pieces, offsets)


def search(codec: Codec, pieces: Sequence[Tensor], offsets: Sequence[int | None]) -> Row:
    """Search the parts of joined pieces [n], which begin on grids or on none."""
    audio, border = torch.cat(list(pieces)), pieces[0].shape[-1]
    began = time.process_time()
    parts = find_grids(audio, codec)
    took = time.process_time() - began
    grids = [None if part.grid is None else part.grid.offset for part in parts]
    right = grids == list(offsets)
    error = abs(parts[0].end - border) / codec.spec.hop_length if right else None
    seconds = len(audio) / codec.spec.sample_rate
    return {"found": right, "frames": error, "cpu": took, "seconds": seconds}


def table(rows: Sequence[Row]) -> str:
    """Format the shares and the errors of each kind."""
    lines = []
    for kind in KINDS:
        some = [row for row in rows if row["kind"] == kind]
        k, n = sum(row["found"] for row in some), len(some)
        errors = [row["frames"] for row in some if row["found"]]
        shown = f"{np.median(errors):.1f} / {max(errors):.1f}" if errors else "–"
        speed = sum(row["seconds"] for row in some) / sum(row["cpu"] for row in some)
        share = f"{k / n:.2f} (at least {lowest_rate(k, n):.2f})"
        lines.append([kind, n, share, shown, f"{speed:.1f}"])
    head = ["parts", "n", "found", "border error in frames: median / largest", "x real time"]
    return tabulate(lines, head, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    raise SystemExit(main())
