"""Settings of scoring, the same for every verb and recipe."""

# No postponed annotations: jsonargparse could not evaluate them in the modules of subclasses.
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokgen.runs.checks import check_least

__all__ = [
    "CLIP_FILES",
    "DEFAULT_METRICS",
    "MAY_CHANGE",
    "MetricSettings",
    "ScoringSettings",
    "check_cap",
    "check_mos",
    "check_once",
]

CLIP_FILES = (".json", ".csv", ".parquet")  # forms of the values of clips
DEFAULT_METRICS = ("cer", "mos", "pesq", "si_sdr")
# These may change when a training continues: they do not affect the trained weights.
MAY_CHANGE = ("metrics", "asr", "cer_cap", "mos", "speaker", "utmos", "fad")


@dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """Settings of the metrics.

    Attributes:
        metrics: names separated by commas: cer, wer, mos, pesq, si_sdr, speaker, f0, voicing, stoi,
            estoi, mel, stft, visqol, visqol_audio, dnsmos, dnsmos_sig, dnsmos_bak, dnsmos_p808,
            plcmos, utmos, nisqa, fad.
        asr: speech recognizer for cer and wer: auto, wav2vec2, whisper, moonshine, or one of the
            last three with :<folder or hub id>.
        cer_cap: largest cer of a clip, such as 1; none by default.
        mos: predictor for mos; squim needs clean speech (mos_reference), distillmos none.
        speaker: encoder for the metric speaker: auto, wavlm, resemblyzer, or wavlm:<folder or hub
            id>.
        utmos: weights for utmos: auto, a hub id, a folder or a file.
        fad: embedding for fad: clap, wavlm, resemblyzer, or one of the first two with :<folder or
            hub id>.
    """

    metrics: list[str] = field(default_factory=lambda: list(DEFAULT_METRICS))
    asr: str = "auto"
    cer_cap: float | None = None
    mos: Literal["auto", "squim", "distillmos"] = "auto"
    speaker: str = "auto"
    utmos: str = "auto"
    fad: str = "clap"

    def __post_init__(self) -> None:
        from tokgen.evaluation.metric import check_backends, parse_metrics

        object.__setattr__(self, "metrics", parse_metrics(self.metrics))
        check_backends(asr=self.asr, mos=self.mos, speaker=self.speaker, fad=self.fad)
        check_cap(self.cer_cap)


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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, workers=0)
        check_mos(self.metrics, self.mos, self.mos_reference)


def check_cap(cer_cap: float | None) -> None:
    """Raise ValueError for a cap that is not above 0."""
    if cer_cap is not None and not cer_cap > 0:
        raise ValueError(f"cer_cap = {cer_cap}: must be above 0, or None for no cap")


def check_mos(metrics: Sequence[str], mos: str, mos_reference: object) -> None:
    """Raise ValueError if SQUIM has no reference."""
    if "mos" in metrics and mos == "squim" and mos_reference is None:
        raise ValueError("mos squim needs mos_reference, an audio file of clean speech")


def check_once(codecs: Sequence[str]) -> None:
    """Raise ValueError if a codec's name is given twice."""
    twice = sorted({name for name in codecs if codecs.count(name) > 1})
    if twice:
        raise ValueError(f"codec {', '.join(twice)} is given twice: give each once")
