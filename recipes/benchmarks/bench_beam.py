"""Measure what a beam search at encoding time costs and gains.

    python recipes/benchmarks/bench_beam.py --corpus speech/ --out beam.json

Every codec encodes the same clips greedily and with a beam, for each of the distances that
`tokgen.quantizers.beam` can minimise. A first table shows the share of frames whose codes are those
of their own quantized latents, the quality after one pass and after repeated passes, the share of
frames with equal codes in two passes, and the time of encoding. Differences are paired by clip.

A second table shows a control: a residual quantizer that k-means fitted offline to the latents of
the same encoder, with as many levels and rows. It is not trained with the decoder, so it is only
measured by its own latents: the variance that it leaves, and the share of codes that come back.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from ceilings import machine
from tokgen.codec.spec import DISTANCES, Search
from tokgen.codec.stages import StagedCodec, check_stages
from tokgen.corpus.listed import open_corpus
from tokgen.extras import require
from tokgen.metrics.pesq import pesq_wb
from tokgen.metrics.si_sdr import si_sdr
from tokgen.metrics.statistics import bootstrap_mean, format_estimate, format_number
from tokgen.quantizers.beam import Level, search_codes
from tokgen.runs.folder import write_json
from tokgen.runs.progress import progress_bar
from tokgen.zoo.lookup import load_codec

Variants = dict[str, tuple[int, str | None]]  # beam and distance by name
Quantize = Callable[[Tensor], Tensor]  # latents [1, D, T] -> codes [1, K, T]
GREEDY = "greedy"
ENOUGH = 40  # frames per row for k-means
CONTROL = {"own codes": 3, "variance left": 4}  # digits of the values in the second table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", nargs="+", default=["speech-16k", "speech-16k-code"])
    parser.add_argument("--corpus", default="recipes/data/allison")
    parser.add_argument("--split", default="test")
    parser.add_argument("--train-split", default="train", help="clips to fit the control to")
    parser.add_argument("--clips", type=int, default=20, help="from the start of the split")
    parser.add_argument("--beams", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--distances", nargs="+", default=list(DISTANCES), choices=DISTANCES)
    parser.add_argument("--scored", type=int, nargs="+", default=[1, 10, 25], help="passes")
    parser.add_argument("--out", type=Path, help=".json file to write")
    a = parser.parse_args(argv)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    chosen = variants(a.beams, a.distances)
    for name in a.codec:
        codec = check_stages(load_codec(name))
        clips = list(read_clips(codec, a.corpus, a.split, a.clips))
        seconds = sum(x.shape[-1] for x in clips) / codec.spec.sample_rate
        print(f"{len(clips)} clips of {a.corpus}, {seconds:.0f} s, by {name}", flush=True)
        rows = measure(codec, clips, chosen, a.scored)
        print("\n" + show(rows, digits_of(a.scored)), flush=True)
        train = read_clips(codec, a.corpus, a.train_split)
        control = measure_control(codec, clips, train, chosen)
        print("\nA residual quantizer fitted to the latents:\n\n" + show(control, CONTROL) + "\n")
        found[name] = {"seconds": seconds, "codec": rows, "control": control}
    if a.out is not None:
        about = {"clips": a.clips, "corpus": a.corpus, "split": a.split, "machine": machine()}
        write_json(a.out, about | {"codecs": found})
    return 0


def digits_of(scored: Sequence[int]) -> dict[str, int]:
    """Return the digits of the values in the first table."""
    digits = {"own codes": 3, "SI-SDR @ 1, dB": 2} | {f"PESQ @ {n}": 2 for n in scored}
    return digits | {f"match {n}–{n + 1}": 3 for n in scored}


def read_clips(
    codec: StagedCodec, corpus: str, split: str, n: int | None = None
) -> Iterator[Tensor]:
    """Yield the first n clips of a split, or all, each [1, 1, N]."""
    opened = open_corpus(corpus, split=split).utterances(codec.spec.sample_rate, rejected=[])
    return (clip.waveform.reshape(1, 1, -1) for clip in islice(opened, n))


def variants(beams: Sequence[int], distances: Sequence[str]) -> Variants:
    """Return beams and distances by name, greedy first."""
    searched = {f"{d}, beam {b}": (b, d) for d in distances for b in beams}
    return {GREEDY: (1, None), **searched}


@torch.inference_mode()
def measure(
    codec: StagedCodec, clips: Sequence[Tensor], chosen: Variants, scored: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Return one value per clip of each variant, by the names of `digits_of`.

    `seconds` is the time of encoding all clips once; the variants take turns, clip by clip.
    """
    coders = {name: codec.with_beam(*how) for name, how in chosen.items()}
    rows: dict[str, dict[str, Any]] = {name: {"seconds": 0.0} for name in coders}
    for coder in coders.values():
        coder.encode(clips[0])  # warm up
    for clip in progress_bar("clips", clips, unit="clip"):
        for name, coder in coders.items():
            row = rows[name]
            began = time.perf_counter()
            codes = coder.encode(clip)
            row["seconds"] += time.perf_counter() - began
            for key, value in one_clip(coder, clip, codes, scored).items():
                row.setdefault(key, []).append(value)
    return rows


def one_clip(
    coder: StagedCodec, clip: Tensor, codes: Tensor, scored: Sequence[int]
) -> dict[str, float]:
    found = {"own codes": same(coder.quantize(coder.dequantize(codes)), codes)}
    for n in range(1, max(scored) + 1):
        audio = coder.decode(codes, clip.shape[-1])
        if n == 1:
            found["SI-SDR @ 1, dB"] = si_sdr(clip.flatten(), audio.flatten())
        if n in scored:
            rate = coder.spec.sample_rate
            found[f"PESQ @ {n}"] = pesq_wb(clip.flatten(), audio.flatten(), rate)
        before, codes = codes, coder.encode(audio)
        if n in scored:
            found[f"match {n}–{n + 1}"] = same(before, codes)
    return found


def same(a: Tensor, b: Tensor) -> float:
    """Return the share of frames of codes [1, K, T] with equal codes in all levels."""
    return (a == b).all(1).double().mean().item()


def show(rows: dict[str, dict[str, Any]], digits: dict[str, int]) -> str:
    """Format means, with their interval for greedy and the difference from greedy for others."""
    greedy, lines = rows[GREEDY], []
    for key, places in digits.items():
        line = [key]
        for name, row in rows.items():
            if name == GREEDY:
                line.append(format_estimate(bootstrap_mean(row[key]), places))
                continue
            mean = format_number(bootstrap_mean(row[key]).mean, places)
            gained = np.subtract(row[key], greedy[key])
            line.append(f"{mean} ({format_estimate(bootstrap_mean(gained), places, sign=True)})")
        lines.append(line)
    if "seconds" in greedy:
        times = [row["seconds"] / greedy["seconds"] for row in rows.values()]
        lines.append(["time of encoding", *(f"{time:.1f}" for time in times)])
    return tabulate(lines, ["", *rows], tablefmt="github", disable_numparse=True)


@torch.inference_mode()
def measure_control(
    codec: StagedCodec, clips: Sequence[Tensor], train: Iterable[Tensor], chosen: Variants
) -> dict[str, dict[str, list[float]]]:
    """Return the share of own codes and the variance left of each clip, for a fitted quantizer."""
    spec, n = codec.spec, 0
    frames = []
    for clip in train:
        frames.append(codec.encode_latents(clip)[0].T)
        n += len(frames[-1])
        if n >= ENOUGH * spec.codebook_size:
            break
    levels = fit_levels(torch.cat(frames), spec.n_codebooks, spec.codebook_size)

    def greedy(latents: Tensor) -> Tensor:
        residual, codes = latents.mT, []
        for level in levels:
            codes.append(level.distances(residual, "latent").argmin(-1))
            residual = residual - level.outputs[codes[-1]]
        return torch.stack(codes, 1)

    def decode(codes: Tensor) -> Tensor:
        pairs = zip(levels, codes.unbind(1), strict=True)
        return torch.stack([level.outputs[c] for level, c in pairs]).sum(0).mT

    rows = {}
    for name, (beam, distance) in chosen.items():
        quantize = greedy
        if beam > 1:
            quantize = _searching(levels, greedy, Search(beam, str(distance)))
        row: dict[str, list[float]] = {"own codes": [], "variance left": []}
        for clip in clips:
            latents = codec.encode_latents(clip)
            codes = quantize(latents)
            quantized = decode(codes)
            row["own codes"].append(same(quantize(quantized), codes))
            around = latents - latents.mean(-1, keepdim=True)
            error = (quantized - latents).square().sum() / around.square().sum()
            row["variance left"].append(error.item())
        rows[name] = row
    return rows


def _searching(levels: Sequence[Level], greedy: Quantize, search: Search) -> Quantize:
    return lambda latents: search_codes(levels, latents, greedy(latents), search)


def fit_levels(frames: Tensor, n_codebooks: int, codebook_size: int) -> list[Level]:
    """Run k-means over the residuals of each level; frames [M, D]."""
    kmeans, levels, residual = require("faiss", "train").Kmeans, [], frames.clone()
    for _ in range(n_codebooks):
        fit = kmeans(frames.shape[1], codebook_size, niter=20, seed=0, min_points_per_centroid=1)
        fit.train(residual.numpy())
        rows = torch.from_numpy(fit.centroids).clone()
        levels.append(Level(rows, rows))
        residual = residual - rows[levels[-1].distances(residual, "latent").argmin(-1)]
    return levels


if __name__ == "__main__":
    raise SystemExit(main())
