"""The metrics of speech by name, and settings of scoring.

`Scorer` computes the values; "cer" is pooled over clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokgen.metrics.tables import Metric

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
DEFAULT_METRICS = ("cer", "mos", "pesq", "si_sdr")
BACKENDS = {  # of the metrics that have several
    "asr": ("auto", "wav2vec2", "moonshine"),
    "mos": ("auto", "squim", "distillmos"),
    "speaker": ("auto", "wavlm", "resemblyzer"),
}
OF_FOLDER = ("wav2vec2", "wavlm")  # may be followed by ":<folder or hub id>"


@dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """Settings of the metrics.

    Attributes:
        metrics: cer, mos, pesq, si_sdr, speaker, f0 and voicing, separated by commas.
        asr: speech recognizer for cer: auto, wav2vec2, moonshine, or wav2vec2:<folder or hub id>.
        mos: predictor for mos.
        speaker: encoder for speaker: auto, wavlm, resemblyzer, or wavlm:<folder or hub id>.
    """

    metrics: list[str] = field(default_factory=lambda: list(DEFAULT_METRICS))
    asr: str = "auto"
    mos: Literal["auto", "squim", "distillmos"] = "auto"
    speaker: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ScoringSettings(MetricSettings):
    """Settings of scoring.

    Attributes:
        mos_reference: audio file of clean speech for squim, not a clip of the corpus; without it
            auto is distillmos.
        workers: processes that score; one per core by default.
    """

    mos_reference: Path | None = None
    workers: int | None = None


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise ValueError if a name is not in `METRICS` or appears twice."""
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics {list(metrics)}: give each once")
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(f"metrics {unknown}: known are {', '.join(sorted(METRICS))}")


def check_backends(**names: str) -> None:
    """Raise ValueError if a backend is unknown, before anything is loaded.

    Args:
        names: backend by kind: `asr`, `mos` and `speaker`.
    """
    for kind, name in names.items():
        plain, colon, _ = name.partition(":")
        if plain not in BACKENDS[kind] or (colon and plain not in OF_FOLDER):
            raise ValueError(f"{kind} {name!r}: known are {', '.join(BACKENDS[kind])}")
