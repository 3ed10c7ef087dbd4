"""Settings of each verb: the flags, and the keys of a `--config` file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokgen.codec.stable.settings import StableDecoding
from tokgen.corpus.settings import CorpusSettings
from tokgen.drift.settings import DriftSettings
from tokgen.evaluation.settings import CLIP_FILES, ScoringSettings, check_once
from tokgen.runs.checks import check_least, check_positive, check_rate, check_writable
from tokgen.runs.device import DeviceSettings
from tokgen.tokens.settings import TokenizeSettings

__all__ = [
    "Codecs",
    "Completion",
    "Compress",
    "Decode",
    "Decompress",
    "Drift",
    "Encode",
    "Export",
    "Info",
    "Recipes",
    "Report",
    "Score",
    "Tokenize",
    "stable_decoding",
]


@dataclass(frozen=True)
class Codecs:
    """List the codecs of the zoo, and published codecs."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Describe a codec, a token or latent dataset, or a file of codes.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id; or a .tgc or
            .safetensors file; or the folder, Parquet file, URL or hub id of a dataset.
        revision: revision of a hub id.
    """

    codec: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Encode(DeviceSettings):
    """Encode audio files as codes files.

    Attributes:
        files: audio of any format and rate; - is the standard input.
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id.
        out: .safetensors file to write, a folder, or - for the standard output. In a folder, a.wav
            becomes a.safetensors.
        n_codebooks: levels to keep; all by default.
        beam: paths of the beam search that chooses the codes; 1 is greedy. By default the codec's
            own, which is greedy unless it was saved with a beam.
        level: how many levels frames of a codec of variable bitrate keep; above 0.
        bitrate: mean kbps of each file with a codec of variable bitrate, in place of level.
        grid: sample in which the first whole frame begins; auto finds it in audio that the codec
            decoded before. By default the first sample.
        overwrite: replace existing files.
    """

    files: list[str]
    codec: str
    out: str
    n_codebooks: int | None = None
    beam: int | None = None
    level: float | None = None
    bitrate: float | None = None
    grid: Literal["auto"] | int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_least(self, n_codebooks=1, beam=1)
        check_rate(self)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a codec as ONNX files, or as programs of torch.export.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id of tokgen's STFT codec or
            a DAC.
        out: folder of encoder.onnx, decoder.onnx and codec.json, or of encoder.pt2 and so on.
        format: onnx for onnxruntime and others, or pt2 for torch.export.load.
        overwrite: replace existing files.
    """

    codec: str
    out: Path
    format: Literal["onnx", "pt2"] = "onnx"
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Decode(DeviceSettings):
    """Decode codes files to audio files.

    Attributes:
        files: files written by `tokgen encode`; - is the standard input.
        codec: the codec that made the codes; by default the one that each file names.
        out: audio file to write (.wav, .flac, .mp3, .opus or .m4a), a folder, or - for the
            standard output. In a folder, a.safetensors becomes a.wav.
        format: format of the audio in a folder or in the standard output; wav by default.
        overwrite: replace existing files.
        stable: decode so that encoding the audio again gives the same codes.
        robust_to: what the codes of --stable survive besides the format of the file, separated by
            commas: int16, dither, gain:DB, resample:HZ, mp3:KBPS, opus:KBPS.
        stable_steps: most steps of the search of --stable over each window.
    """

    files: list[str]
    codec: str | None = None
    out: str
    format: Literal["wav", "flac", "mp3", "opus", "m4a"] | None = None
    overwrite: bool = False
    stable: bool = False
    robust_to: list[str] = field(default_factory=lambda: ["int16"])
    stable_steps: int = StableDecoding.steps

    def __post_init__(self) -> None:
        check_least(self, stable_steps=0)
        for name, set_ in (
            ("robust_to", self.robust_to != ["int16"]),
            ("stable_steps", self.stable_steps != StableDecoding.steps),
        ):
            if set_ and not self.stable:
                raise ValueError(f"{name} is given without stable, and does nothing: set stable")
        stable_decoding(self)


def stable_decoding(s: Decode) -> StableDecoding | None:
    """Return how `tokgen decode` decodes stably; None if it decodes plainly."""
    if not s.stable:
        return None
    names = tuple(name for text in s.robust_to for name in text.split(",") if name)
    return StableDecoding(steps=s.stable_steps, robust_to=names)


@dataclass(frozen=True, kw_only=True)
class Compress(DeviceSettings):
    """Compress audio files to .tgc files.

    Attributes:
        files: audio of any format and rate, and folders of audio; - is the standard input.
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id.
        out: .tgc file to write, a folder, or - for the standard output. In a folder, a.wav becomes
            a.tgc, and files of a folder keep their place.
        n_codebooks: levels to keep; all by default. With a variable bitrate, the most levels.
        level: how a codec of variable bitrate chooses the levels of each frame; their number grows
            with it.
        bitrate: kbps, in place of n_codebooks and level: the mean of a codec of variable bitrate,
            with the bits of the depth; the most of packed codes of others.
        beam: paths of the beam search that chooses the codes; 1 is greedy. By default the codec's
            own, which is greedy unless it was saved with a beam.
        entropy: packed, static, adaptive or model; auto is the best that the codec has, and packed
            with a variable bitrate. Or the file or folder of an entropy model.
        block_seconds: length of blocks. A damaged block is lost as a whole.
        jobs: processes that work at a time, on a CPU.
        overwrite: replace existing files.
    """

    files: list[str]
    codec: str
    out: str
    n_codebooks: int | None = None
    level: float | None = None
    bitrate: float | None = None
    beam: int | None = None
    entropy: str = "auto"
    block_seconds: float = 10.0
    jobs: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_least(self, n_codebooks=1, beam=1, jobs=1)
        check_positive(self, "level", "bitrate", "block_seconds")
        for name in ("n_codebooks", "level"):
            if self.bitrate is not None and getattr(self, name) is not None:
                raise ValueError(f"bitrate and {name} are both given: give one")


@dataclass(frozen=True, kw_only=True)
class Decompress(DeviceSettings):
    """Decompress .tgc files to audio files.

    Attributes:
        files: files written by `tokgen compress`, and folders of them; - is the standard input.
        codec: the codec that made the codes; by default the one that each file names.
        out: audio file to write (.wav, .flac, .mp3, .opus or .m4a), a folder, or - for the
            standard output. In a folder, a.tgc becomes a.wav.
        format: format of the audio in a folder or in the standard output; wav by default.
        entropy: file or folder of the entropy model; by default that beside the codec.
        start: where the part to decompress begins, in seconds.
        seconds: length of the part; by default the rest.
        jobs: processes that work at a time, on a CPU.
        overwrite: replace existing files.
        stable: decode so that compressing the audio again gives the same codes.
    """

    files: list[str]
    codec: str | None = None
    out: str
    format: Literal["wav", "flac", "mp3", "opus", "m4a"] | None = None
    entropy: str | None = None
    start: float = 0.0
    seconds: float | None = None
    jobs: int = 1
    overwrite: bool = False
    stable: bool = False

    def __post_init__(self) -> None:
        check_least(self, jobs=1, start=0)
        check_positive(self, "seconds")
        if self.stable and (self.start or self.seconds is not None):
            raise ValueError(
                "stable with start or seconds: stable decoding takes whole files; leave out both"
            )


@dataclass(frozen=True, kw_only=True)
class Tokenize(TokenizeSettings, CorpusSettings, DeviceSettings):
    """Tokenize a corpus as a token dataset, or with a continuous codec as a latent dataset.

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
    """Score codecs on a corpus.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, hub id, mp3:KBPS or opus:KBPS; repeat
            the flag for several codecs.
        clips: number of clips to score, from the first on; all by default.
        out: .json file for the numbers.
        per_clip: .json, .csv or .parquet file for the values of single clips, with the reason of
            each that failed.
        overwrite: replace existing files.
    """

    codec: list[str]
    clips: int | None = None
    out: Path | None = None
    per_clip: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        ScoringSettings.__post_init__(self)
        CorpusSettings.__post_init__(self)
        check_once(self.codec)
        check_least(self, clips=1)
        inputs = (self.corpus, self.mos_reference or self.corpus)
        for path, suffixes in ((self.out, (".json",)), (self.per_clip, CLIP_FILES)):
            if path is not None:
                check_writable(path, overwrite=self.overwrite, inputs=inputs, suffixes=suffixes)
        if self.out is not None and self.out == self.per_clip:
            raise ValueError(f"out and per_clip are both {self.out}: give two files")


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
        overwrite: replace a file that is not a page of this command, too.
    """

    runs: list[Path]
    out: Path | None = None
    clips: int = 12
    audio: Literal["wav", "opus"] = "wav"
    opus_kbps: int = 64
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_least(self, clips=0, opus_kbps=6)
