"""Small corpora for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile as sf

from tokgen.corpus.entries import Rejection
from tokgen.corpus.reading import Readable, Utterance
from tokgen.storage import find_filesystem

CLIPS = [  # file name, seconds, speaker, split, text
    ("a one.wav", 1.2, "ann", "train", "one two three"),
    ("b.wav", 0.35, "ann", "train", "yes"),
    ("c.wav", 2.1, "ben", "train", "the quick brown fox jumps"),
    ("d.wav", 0.8, "ben", "validation", "hello there"),
    ("é.wav", 1.61, "ann", "train", "agent 47, please hold"),
    ("f.wav", 0.5, "ben", "train", "no"),
    ("g.wav", 1.0, "ann", "test", "thank you"),
    ("h.wav", 1.9, "ben", "test", "your call may be recorded"),
    ("i.wav", 0.7, "ann", "validation", "goodbye now"),
    ("j.wav", 1.33, "ben", "train", "please try again later"),
]


def tone(seconds: float = 0.5, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def save(
    path: Path, samples: np.ndarray | None = None, rate: int = 16000, subtype: str | None = None
) -> Path:
    """Write an audio file, by default half a second of a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, tone() if samples is None else samples, rate, subtype=subtype)
    return path


def audio_bytes(tmp_path: Path, hertz: float) -> bytes:
    """Return half a second of a tone as a FLAC file."""
    return save(tmp_path / "scratch.flac", tone(hertz=hertz)).read_bytes()


def reasons(rejections: list[Rejection]) -> dict[str, str]:
    """Return reasons by file name."""
    return {Path(r.source).name: r.reason for r in rejections}


def run(corpus: Readable, rate: int = 16000) -> tuple[list[Utterance], list[Rejection]]:
    """Return all utterances of a corpus and what could not be loaded."""
    rejected: list[Rejection] = []
    return list(corpus.utterances(rate, rejected=rejected)), rejected


def table(tmp_path: Path, n: int = 6, **columns: list) -> pa.Table:
    """Return a table of n tones, and of other columns."""
    audio = [{"bytes": audio_bytes(tmp_path, 200 + 50 * i), "path": f"c{i}.flac"} for i in range(n)]
    (tmp_path / "scratch.flac").unlink()
    return pa.table({"audio": audio, **columns})


def upload(folder: Path, url: str) -> str:
    """Copy a folder to a URL."""
    filesystem, path = find_filesystem(url)
    for file in folder.rglob("*"):
        if file.is_file():
            filesystem.pipe_file(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return url
