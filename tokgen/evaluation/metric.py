"""The metrics of speech by name. `Scorer` computes their values; "cer" is pooled over clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tokgen.metrics.statistics import Limits
from tokgen.metrics.tables import Metric
from tokgen.runs.checks import closest

__all__ = [
    "BACKENDS",
    "LIMITS",
    "METRICS",
    "OF_FOLDER",
    "check_backends",
    "check_metrics",
    "parse_metrics",
]

METRICS = {
    metric.name: metric
    for metric in (
        Metric("mos", "MOS", "higher"),
        Metric("pesq", "PESQ", "higher"),
        Metric("cer", "CER", "lower", digits=3, ratio=("edits", "chars")),
        Metric("si_sdr", "SI-SDR", "higher", "dB", 1),
        Metric("speaker", "speaker similarity", "higher", digits=3),
        Metric("f0", "F0 error", "lower", "cents", 0),
        Metric("voicing", "voicing error", "lower", digits=3),
    )
}
LIMITS: dict[str, Limits] = {  # smallest and largest value; metrics without limits are absent
    "mos": (1, 5),
    "pesq": (1, 4.65),
    "drift_pesq": (1, 4.65),
    "cer": (0, math.inf),
    "speaker": (-1, 1),
    "f0": (0, math.inf),
    "voicing": (0, 1),
}
BACKENDS = {  # of the metrics that have several
    "asr": ("auto", "wav2vec2", "moonshine"),
    "mos": ("auto", "squim", "distillmos"),
    "speaker": ("auto", "wavlm", "resemblyzer"),
}
OF_FOLDER = ("wav2vec2", "wavlm")  # may be followed by ":<folder or hub id>"


def parse_metrics(metrics: str | Sequence[str]) -> list[str]:
    """Return names of metrics. Each string may hold several, separated by commas.

    Raises:
        ValueError: a name is not in `METRICS` or appears twice.
    """
    given = [metrics] if isinstance(metrics, str) else metrics
    names = [name.strip() for text in given for name in text.split(",")]
    check_metrics(names)
    return names


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise ValueError if a name is not in `METRICS` or appears twice."""
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics {list(metrics)}: give each once")
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        known = ", ".join(sorted(METRICS))
        raise ValueError(f"metrics {unknown}{closest(unknown[0], METRICS)}: known are {known}")


def check_backends(**names: str) -> None:
    """Check names of backends, before anything is loaded.

    Args:
        names: backend by kind: `asr`, `mos` and `speaker`.
    Raises:
        ValueError: a name is unknown.
        FileNotFoundError: a name holds the path of a folder that does not exist.
    """
    for kind, name in names.items():
        plain, colon, source = name.partition(":")
        if plain not in BACKENDS[kind] or (colon and plain not in OF_FOLDER):
            close = "" if colon else closest(name, BACKENDS[kind])
            raise ValueError(f"{kind} {name!r}{close}: known are {', '.join(BACKENDS[kind])}")
        if colon and not source.strip():
            raise ValueError(f"{kind} {name!r}: give a folder or a hub id after the colon")
        is_path = source.startswith(("/", ".", "~")) or source.count("/") > 1
        if is_path and not Path(source).is_dir():
            raise FileNotFoundError(f"{kind} {name!r}: no such folder")
