"""Settings of each verb: the flags, and the keys of a `--config` file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokgen.corpus.settings import CorpusSettings
from tokgen.drift.settings import DriftSettings
from tokgen.evaluation.settings import ScoringSettings
from tokgen.runs.checks import check_least
from tokgen.runs.device import DeviceSettings
from tokgen.tokens.settings import TokenizeSettings

__all__ = [
    "Codecs",
    "Completion",
    "Decode",
    "Drift",
    "Encode",
    "Info",
    "Recipes",
    "Report",
    "Score",
    "Tokenize",
]


@dataclass(frozen=True)
class Codecs:
    """List the codecs of the zoo."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Describe a codec.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id.
        revision: revision of a hub id.
    """

    codec: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Encode(DeviceSettings):
    """Encode an audio file as a codes file.

    Attributes:
        file: audio of any format and rate.
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id.
        out: the .safetensors file to write.
        n_codebooks: levels to keep; all by default.
    """

    file: Path
    codec: str
    out: Path
    n_codebooks: int | None = None

    def __post_init__(self) -> None:
        if self.file.is_dir():
            raise ValueError(f"{self.file} is a folder: `tokgen tokenize` encodes folders")
        _check_out(self.out, ".safetensors", self.file)
        check_least(self, n_codebooks=1)


@dataclass(frozen=True, kw_only=True)
class Decode(DeviceSettings):
    """Decode a codes file to an audio file.

    Attributes:
        file: a file written by `tokgen encode`.
        codec: the codec that made the codes; by default the one that the file names.
        out: the .wav or .flac file to write.
    """

    file: Path
    codec: str | None = None
    out: Path

    def __post_init__(self) -> None:
        _check_out(self.out, None, self.file)


@dataclass(frozen=True, kw_only=True)
class Tokenize(TokenizeSettings, CorpusSettings, DeviceSettings):
    """Tokenize a corpus as a token dataset.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id.
        out: folder of the dataset, or an fsspec URL.
    """

    codec: str
    out: str

    def __post_init__(self) -> None:
        TokenizeSettings.__post_init__(self)
        CorpusSettings.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class Score(ScoringSettings, CorpusSettings, DeviceSettings):
    """Score a codec on a corpus.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id.
        out: .json file for the numbers.
    """

    codec: str
    out: Path | None = None

    def __post_init__(self) -> None:
        ScoringSettings.__post_init__(self)
        CorpusSettings.__post_init__(self)
        _check_out(self.out, ".json")


@dataclass(frozen=True, kw_only=True)
class Drift(DriftSettings, CorpusSettings, DeviceSettings):
    """Measure how codecs change a corpus under repeated encoding.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, hub id, mp3:KBPS or opus:KBPS; repeat
            the flag for several codecs.
        out: folder of the results.
        overwrite: remove the results of another measurement from the folder.
    """

    codec: list[str]
    out: Path
    overwrite: bool = False

    def __post_init__(self) -> None:
        DriftSettings.__post_init__(self)
        CorpusSettings.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """List the recipes, or copy one to change and run it.

    Attributes:
        action: list, or copy a recipe with its settings, the recipes it imports and the included
            corpus.
        name: recipe to copy.
        to: folder that gets a folder `recipes`.
        overwrite: replace files that have other content.
    """

    action: Literal["list", "copy"]
    name: str | None = None
    to: Path = Path()
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print the script that completes `tokgen` in a shell.

    Attributes:
        shell: the shell.
    """

    shell: Literal["bash", "zsh", "fish"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one HTML page of runs, to read and to listen to.

    Attributes:
        runs: folders of runs.
        out: the .html file; by default RUN/report.html, or ./report.html for several runs.
        clips: utterances to embed per run.
        audio: wav (16 bits, lossless) or opus (small).
        opus_kbps: bitrate of opus.
    """

    runs: list[Path]
    out: Path | None = None
    clips: int = 12
    audio: Literal["wav", "opus"] = "wav"
    opus_kbps: int = 64

    def __post_init__(self) -> None:
        _check_out(self.out, ".html")


def _check_out(out: Path | None, suffix: str | None, file: Path | None = None) -> None:
    """Raise ValueError if `out` is a folder, the input `file`, or has another suffix."""
    if out is None:
        return
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: give a file")
    if file is not None and out.exists() and file.exists() and out.samefile(file):
        raise ValueError(f"--out {out} is the input file: give another file")
    if suffix is not None and out.suffix.lower() != suffix:
        raise ValueError(f"--out {out} must end in {suffix}")
