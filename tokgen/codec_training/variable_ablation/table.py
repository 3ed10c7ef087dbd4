"""Table of an ablation of the variable bitrate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tokgen.codec_training.variable_ablation.measure import QUANTILES, Measured
from tokgen.codec_training.variable_ablation.settings import (
    PAPER,
    VariableAblationSettings,
    conditions_of,
)
from tokgen.metrics import pesq, si_sdr
from tokgen.metrics.statistics import bootstrap_crossed, judge, paired_crossed
from tokgen.metrics.tables import Difference, Metric, Row, Table

__all__ = ["CONSTANT", "variable_table"]

CONSTANT = "{}, constant rate"  # name of a row


def variable_table(found: Mapping[str, Sequence[Measured]], s: VariableAblationSettings) -> Table:
    """Make the table of means and paired differences over clips and seeds.

    Args:
        found: for each condition's label, the results of its seeds.
    """
    metrics, scored = [], []
    for kbps in s.bitrates:
        name, at = f"{kbps:g}", f"@ {kbps:g} kbps"
        scored += [
            Metric(f"pesq_{name}", f"PESQ {at}", "higher", backend=pesq.BACKEND),
            Metric(f"si_sdr_{name}", f"SI-SDR {at}", "higher", "dB", backend=si_sdr.BACKEND),
        ]
        metrics.append(Metric(f"kbps_{kbps:g}", f"bitrate @ {kbps:g}", None, "kbps", detail=True))
    spread = [
        Metric(f"importance_{q:g}", f"importance, {q:.0%} of frames below", None, digits=3)
        for q in QUANTILES
    ]
    rows: list[Row] = []
    differences: list[Difference] = []
    variable = {label: _columns([r.variable for r in runs]) for label, runs in found.items()}
    control = _control(s)
    for label, runs in found.items():
        values, constant = variable[label], _columns([r.constant for r in runs])
        quantiles = _columns([r.importance for r in runs])
        spreads = {f"importance_{q}": columns for q, columns in quantiles.items()}
        base = s.training.start_from or s.training.architecture
        for name, columns in ((label, values | spreads), (CONSTANT.format(label), constant)):
            estimates = {
                k: bootstrap_crossed(v, n_resamples=s.n_resamples) for k, v in columns.items()
            }
            rows.append(Row(name, "resynthesis", base, estimates))
        for metric in scored:
            pairs = [(CONSTANT.format(label), constant)]
            if label != control:
                pairs.append((control, variable[control]))
            for than, first in pairs:
                e = paired_crossed(
                    first[metric.name], values[metric.name], n_resamples=s.n_resamples
                )
                verdict = judge(e, better="higher")
                differences.append(Difference(label, than, metric.name, e, None, verdict))
    n_clips = len(next(iter(found.values()))[0].ids)
    seeds = f"{s.seeds} seeds" if s.seeds > 1 else "one seed"
    notes = [
        f"{s.training.steps} steps with {seeds}; {n_clips} validation clips; intervals over clips"
        + (" and seeds" if s.seeds > 1 else " only"),
        "variable rate: the bitrate has the bits of the depth; constant rate: the same network, "
        "without them, interpolated between numbers of levels",
        "importance: mean over clips of the quantile over a clip's frames",
    ]
    return Table([*scored, *spread, *metrics], rows, differences, notes)


def _columns(seeds: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, np.ndarray]:
    """Return the values of each name as [seeds, clips]."""
    return {name: np.stack([values[name] for values in seeds]) for name in seeds[0]}


def _control(s: VariableAblationSettings) -> str:
    """Return the label of the condition that the others are compared with."""
    conditions, own = conditions_of(s), s.training.variable.alpha
    mine = [c.label for c in conditions if c.surrogate == PAPER and c.alpha == own]
    return (mine or [conditions[0].label])[0]
