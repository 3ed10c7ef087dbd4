"""Tables of `bench_stable`: codes kept, quality, and codes kept after transports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil
from tabulate import tabulate

from rates import lowest_rate
from tokgen.evaluation.metric import METRICS
from tokgen.metrics.statistics import (
    NONE,
    bootstrap_mean,
    bootstrap_ratio,
    format_estimate,
    paired_crossed,
)

MEL = "mel"  # key of the mel distance in the scores of a record
Record = dict[str, Any]


def tables(
    found: dict[str, Any], metrics: Sequence[str], threads: int, robust_to: Sequence[str]
) -> str:
    """Format the three tables in Markdown.

    Args:
        found: by codec, the records of its "clips" and perhaps of its "transports".
        metrics: names in `METRICS`.
    """
    kept, quality, ways = [], [], []
    for name, parts in found.items():
        records = parts["clips"]
        kept.append([f"`{name}`", str(len(records)), *kept_row(records)])
        quality += [[f"`{name}`", *row] for row in quality_rows(records, metrics)]
        ways += [[f"`{name}`", *row] for row in transport_rows(parts.get("transports", []))]
    load = np.mean([r["load"] for parts in found.values() for r in parts["clips"]])
    head = ["codec", "n", "codes kept: plain", "stable", "stable, 16 bits", "clips at 100 %"]
    head += ["steps, mean / most", "audio over change (dB)", "times real time: plain", "stable"]
    texts = [
        _table([*head, "CPU seconds per second: plain", "stable"], kept),
        "The bound of clips at 100 % is one-sided, with 95 % confidence (Clopper-Pearson). "
        f"Plain is encoding and decoding, stable is decoding. Threads: {threads}, mean load "
        f"{load:.1f} on {psutil.cpu_count()} cores. Robust to {', '.join(robust_to) or 'nothing'}.",
        _table(["codec", "", "n", "plain", "stable", "difference", "its median"], quality),
    ]
    if ways:
        head = ["codec", "after", "n", "plain", "stable", "robust to it"]
        texts.append(_table([*head, "audio over change (dB)", "PESQ, less plain"], ways))
    return "\n\n".join(texts)


def kept_row(records: Sequence[Record]) -> list[str]:
    seconds = sum(r["seconds"] for r in records)

    def share(name: str, key: str) -> str:
        values = [r[name][key] for r in records]
        return format_estimate(bootstrap_mean(values, limits=(0, 1)), 4)

    all_kept = sum(r["stable"]["kept16"] == 1 for r in records)
    steps = format_estimate(bootstrap_mean([r["steps"] for r in records]), 1)
    changed = bootstrap_mean([r["snr_db"] for r in records if r["steps"] > 0])
    wall, cpu = (
        [sum(r[name][clock] for r in records) for name in ("plain", "stable")]
        for clock in ("wall", "cpu")
    )
    return [
        share("plain", "kept"),
        share("stable", "kept"),
        share("stable", "kept16"),
        f"{100 * all_kept / len(records):.1f} % ({all_kept}; at least "
        f"{100 * lowest_rate(all_kept, len(records)):.1f} %)",
        f"{steps} / {max(r['steps'] for r in records):.0f}",
        format_estimate(changed, 1),
        *(f"{seconds / took:.2f}" for took in wall),
        *(f"{took / seconds:.2f}" for took in cpu),
    ]


def quality_rows(records: Sequence[Record], metrics: Sequence[str]) -> Iterator[list[str]]:
    for metric in (*metrics, MEL):
        about = METRICS.get(metric)
        label = "mel distance" if about is None else about.label
        digits = 3 if about is None or metric in ("mos", "pesq") else max(2, about.digits)
        names = about.ratio if about is not None and about.ratio else (metric,)
        values = [
            [[r[way]["scores"][x] for r in records] for x in names] for way in ("plain", "stable")
        ]
        each = [bootstrap_ratio(*v) if len(v) == 2 else bootstrap_mean(v[0]) for v in values]
        (a, *below), (b, *under) = ([[row] for row in v] for v in values)
        gained = paired_crossed(a, b, *below, *under)
        cells = [format_estimate(e, digits) for e in each]
        unit = f", {about.unit}" if about is not None and about.unit else ""
        change = format_estimate(gained, digits, sign=True)
        middle = NONE if below else f"{np.nanmedian(np.subtract(b, a)):+.{digits}f}"
        yield [label + unit, str(gained.n), *cells, change, middle]
    if "pesq" in metrics:
        heard = bootstrap_mean([r["pesq_of_change"] for r in records])
        cells = [NONE, format_estimate(heard, 2), NONE, NONE]
        yield ["PESQ of stable against plain", str(heard.n), *cells]


def transport_rows(records: Sequence[Record]) -> Iterator[list[str]]:
    for name in records[0] if records else ():
        if name == "id":
            continue
        rows = [r[name] for r in records]
        shares = [
            format_estimate(bootstrap_mean([r[way] for r in rows], limits=(0, 1)), 3)
            for way in ("plain", "stable", "robust")
        ]
        level = bootstrap_mean([r["snr_db"] for r in rows])
        cost = bootstrap_mean([r["pesq"] for r in rows])
        cells = [format_estimate(level, 1), format_estimate(cost, 2, sign=True)]
        yield [name, str(len(rows)), *shares, *cells]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)
