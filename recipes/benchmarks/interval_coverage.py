"""Measure how often 95 % intervals contain the true mean, by simulation.

    python recipes/benchmarks/interval_coverage.py

The first table is about clips: tokgen's studentised bootstrap next to Student's t and to scipy's
percentile and BCa bootstraps. Normal values stand for PESQ and MOS, lognormal ones (sigma 1) for
errors of F0. CER is pooled over clips of 10 to 89 characters, of which 70 % have no error and the
others a share of errors from the beta distribution (1, 9).

The second table is about differences between two codecs over the same training seeds and clips,
such as the cells of an ablation: tokgen's interval next to percentiles of a bootstrap of both seeds
and clips (Owen 2007). The columns `seed`, `clip` and `both` are the standard deviations of
the effects of a seed, of a clip, and of a seed on a clip.

The third table is about the verdict "no worse": how often a loss equal to the margin passes, which
should be 2.5 %.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.stats
from tabulate import tabulate

from tokgen.metrics.statistics import bootstrap_mean, bootstrap_ratio, judge, paired_crossed

Sample = tuple[np.ndarray, np.ndarray]  # numerators and denominators of clips
Ends = tuple[float, float]
RESAMPLES = 1000
FEWER = 400  # resamples in the slower second table and in the third
LEVEL = 0.95


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--clips", type=int, nargs="+", default=[18, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--designs", type=int, default=500, help="repetitions of the second table")
    a = parser.parse_args(argv)
    warnings.filterwarnings("ignore", message=".*degenerate")  # scipy, on samples without errors
    print(f"coverage (%), median width relative to Student's t; {describe(a.repetitions)}")
    show(cover_clips(a.repetitions, a.clips), ["values", "clips", *METHODS])
    print(f"\ncoverage of paired differences (%); {describe(a.designs)}")
    show(
        cover_seeds(a.designs, a.seeds, a.clips),
        ["seeds", "clips", "seed", "clip", "both", "tokgen", "percentiles"],
    )
    print("\nlosses of the margin that pass as no worse (%)")
    show(pass_margins(a.repetitions, [5, 10, *a.clips]), ["clips", "passed"])
    return 0


def describe(repetitions: int) -> str:
    error = 100 * math.sqrt(LEVEL * (1 - LEVEL) / repetitions)
    return f"{repetitions} repetitions, the standard error of 95 % is {error:.1f} %"


def show(rows: Iterator[list[object]], header: list[str]) -> None:
    print(tabulate(list(rows), header, tablefmt="github", disable_numparse=True), flush=True)


# Clips


def draw_normal(n: int, rng: np.random.Generator) -> Sample:
    return rng.normal(1, 1, n), np.ones(n)


def draw_lognormal(n: int, rng: np.random.Generator) -> Sample:
    return rng.lognormal(0, 1, n), np.ones(n)


def draw_cer(n: int, rng: np.random.Generator) -> Sample:
    lengths = rng.integers(10, 90, n)
    shares = np.where(rng.random(n) < 0.3, rng.beta(1, 9, n), 0)
    return rng.binomial(lengths, shares).astype(float), lengths.astype(float)


# What to draw, and its true mean.
VALUES: dict[str, tuple[Callable[[int, np.random.Generator], Sample], float]] = {
    "normal": (draw_normal, 1.0),
    "lognormal": (draw_lognormal, math.exp(0.5)),
    "CER": (draw_cer, 0.3 * 0.1),
}


def studentised(a: np.ndarray, b: np.ndarray, seed: int) -> Ends:
    found = bootstrap_ratio(a.tolist(), b, seed=seed, n_resamples=RESAMPLES)
    return found.low, found.high


def student(a: np.ndarray, b: np.ndarray, seed: int) -> Ends:
    ratio = a.sum() / b.sum()
    error = ((a - ratio * b) / b.mean()).std(ddof=1) / math.sqrt(len(a))
    half = scipy.stats.t.ppf((1 + LEVEL) / 2, len(a) - 1) * error
    return ratio - half, ratio + half


def of_scipy(method: str) -> Callable[[np.ndarray, np.ndarray, int], Ends]:
    def find(a: np.ndarray, b: np.ndarray, seed: int) -> Ends:
        found = scipy.stats.bootstrap(
            (a, b),
            lambda a, b, axis: a.sum(axis) / b.sum(axis),
            paired=True,
            vectorized=True,
            method=method,
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(seed),
        )
        return found.confidence_interval

    return find


METHODS = {
    "studentised (tokgen)": studentised,
    "BCa": of_scipy("BCa"),
    "percentiles": of_scipy("percentile"),
    "Student's t": student,
}


def cover_clips(repetitions: int, sizes: Sequence[int]) -> Iterator[list[object]]:
    """Yield distribution, number of clips, and coverage and relative width of each method."""
    for name, (draw, truth) in VALUES.items():
        for n in sizes:
            rng = np.random.default_rng(n)
            samples = [draw(n, rng) for _ in range(repetitions)]
            row: list[object] = [name, n]
            usual = np.median([high - low for low, high in (student(*s, 0) for s in samples)])
            for method in METHODS.values():
                ends = np.array([method(*sample, i) for i, sample in enumerate(samples)])
                hits = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
                width = np.nanmedian(ends[:, 1] - ends[:, 0]) / (usual or math.nan)
                row.append(f"{100 * hits.mean():.1f}, {width:.2f}")
            yield row


# Seeds x clips

EFFECTS = ((0.0, 1.0, 1.0), (0.1, 1.0, 1.0), (0.3, 1.0, 1.0), (1.0, 1.0, 1.0))


def cover_seeds(
    repetitions: int, seeds: Sequence[int], sizes: Sequence[int]
) -> Iterator[list[object]]:
    """Yield the design and the coverage of both intervals."""
    for n_seeds in seeds:
        for n_clips in sizes:
            for effects in EFFECTS:
                rng = np.random.default_rng([n_seeds, n_clips])
                hits = np.zeros(2)
                for i in range(repetitions):
                    shapes = (n_seeds, 1), (1, n_clips), (n_seeds, n_clips)
                    parts = [rng.normal(0, e, s) for e, s in zip(effects, shapes, strict=True)]
                    table = parts[0] + parts[1] + parts[2]
                    base = np.zeros(table.shape)
                    found = paired_crossed(base, table, seed=i, n_resamples=FEWER)
                    low, high = resample_both(table, i)
                    hits += found.low <= 0 <= found.high, low <= 0 <= high
                shares = 100 * hits / repetitions
                yield [n_seeds, n_clips, *effects, *(f"{share:.1f}" for share in shares)]


def resample_both(table: np.ndarray, seed: int) -> Ends:
    """Return percentiles of the means over drawn seeds and drawn clips."""
    n_seeds, n_clips = table.shape
    rng = np.random.default_rng(seed)
    clips = rng.integers(0, n_clips, (FEWER, n_clips))
    drawn = rng.integers(0, n_seeds, (FEWER, n_seeds))
    by_seed = np.stack([row[clips].mean(-1) for row in table])  # [S, R]
    low, high = np.quantile(
        np.take_along_axis(by_seed, drawn.T, axis=0).mean(0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    )
    return float(low), float(high)


# Verdicts


def pass_margins(repetitions: int, sizes: Sequence[int]) -> Iterator[list[object]]:
    """Yield the number of clips, and how often normal losses of the margin pass."""
    for n in sizes:
        rng = np.random.default_rng(n)
        passed = 0
        for i in range(repetitions):
            found = bootstrap_mean(rng.normal(-0.2, 1, n).tolist(), seed=i, n_resamples=FEWER)
            passed += judge(found, better="higher", margin=0.2) in ("no worse", "better")
        yield [n, f"{100 * passed / repetitions:.1f}"]


if __name__ == "__main__":
    raise SystemExit(main())
