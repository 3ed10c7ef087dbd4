"""The metrics by name. `Scorer` computes their values; "cer" and "wer" are pooled over clips."""

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
    "OF_RATE",
    "OF_ROWS",
    "OF_TEXT",
    "SOURCES",
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
        Metric("wer", "WER", "lower", digits=3, ratio=("word_edits", "words")),
        Metric("si_sdr", "SI-SDR", "higher", "dB", 1),
        Metric("speaker", "speaker similarity", "higher", digits=3),
        Metric("f0", "F0 error", "lower", "cents", 0),
        Metric("voicing", "voicing error", "lower", digits=3),
        Metric("stoi", "STOI", "higher", digits=3),
        Metric("estoi", "ESTOI", "higher", digits=3),
        Metric("mel", "mel distance", "lower", digits=3),
        Metric("stft", "STFT distance", "lower", digits=3),
        Metric("visqol", "ViSQOL", "higher"),
        Metric("visqol_audio", "ViSQOL audio", "higher"),
        Metric("dnsmos", "DNSMOS", "higher"),
        Metric("dnsmos_sig", "DNSMOS speech", "higher"),
        Metric("dnsmos_bak", "DNSMOS background", "higher"),
        Metric("dnsmos_p808", "DNSMOS P.808", "higher"),
        Metric("plcmos", "PLCMOS", "higher"),
        Metric("utmos", "UTMOS", "higher"),
        Metric("nisqa", "NISQA", "higher"),
        Metric("fad", "FAD", "lower", digits=3),
    )
}
LIMITS: dict[str, Limits] = {  # smallest and largest value; metrics without limits are absent
    "mos": (1, 5),
    "pesq": (1, 4.65),
    "drift_pesq": (1, 4.65),
    "cer": (0, math.inf),
    "wer": (0, math.inf),
    "speaker": (-1, 1),
    "f0": (0, math.inf),
    "voicing": (0, 1),
    "stoi": (-1, 1),
    "estoi": (-1, 1),
    "mel": (0, math.inf),
    "stft": (0, math.inf),
    "visqol": (1, 5),
    "visqol_audio": (1, 5),
    "dnsmos": (1, 5),
    "dnsmos_sig": (1, 5),
    "dnsmos_bak": (1, 5),
    "dnsmos_p808": (1, 5),
    "plcmos": (1, 5),
    "utmos": (1, 5),
    "nisqa": (1, 5),
    "fad": (0, math.inf),
}
SOURCES = {  # who proposed each metric
    "mos": "Kumar et al. 2023 (SQUIM); Stahl and Gamper 2025 (DistillMOS)",
    "pesq": "ITU-T P.862.2",
    "cer": "Levenshtein 1966",
    "wer": "Levenshtein 1966",
    "si_sdr": "Le Roux et al. 2019",
    "speaker": "Chen et al. 2022 (WavLM); Wan et al. 2018 (Resemblyzer)",
    "f0": "Nieradzik 2025 (SwiftF0)",
    "voicing": "Nakatani et al. 2008",
    "stoi": "Taal et al. 2011",
    "estoi": "Jensen and Taal 2016",
    "mel": "Kumar et al. 2023 (DAC)",
    "stft": "Engel et al. 2020 (DDSP), with the settings of DAC",
    "visqol": "Chinen et al. 2020 (ViSQOL v3)",
    "visqol_audio": "Chinen et al. 2020 (ViSQOL v3)",
    "dnsmos": "Reddy et al. 2022 (P.835)",
    "dnsmos_sig": "Reddy et al. 2022 (P.835)",
    "dnsmos_bak": "Reddy et al. 2022 (P.835)",
    "dnsmos_p808": "Reddy et al. 2021 (P.808)",
    "plcmos": "Diener et al. 2023",
    "utmos": "Saeki et al. 2022",
    "nisqa": "Mittag et al. 2021",
    "fad": "Kilgour et al. 2019",
}
OF_TEXT = ("cer", "wer")  # need a transcript and a recogniser
OF_ROWS = ("fad",)  # have one value for a row, and none for a clip
OF_RATE = ("si_sdr", "mel", "stft")  # are measured at the rate of the audio, and depend on it
BACKENDS = {  # of the metrics that have several
    "asr": ("auto", "wav2vec2", "whisper", "moonshine"),
    "mos": ("auto", "squim", "distillmos"),
    "speaker": ("auto", "wavlm", "resemblyzer"),
    "fad": ("clap", "wavlm", "resemblyzer"),
}
# May be followed by ":<folder or hub id>".
OF_FOLDER = ("wav2vec2", "whisper", "moonshine", "wavlm", "clap")


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
        names: backend by kind: `asr`, `mos`, `speaker` and `fad`.
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
