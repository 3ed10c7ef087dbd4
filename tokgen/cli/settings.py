"""Settings of each verb: the flags, and the keys of a `--config` file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Choose the clips of a corpus.

    Attributes:
        corpus: folder of audio, .parquet file or folder of them, saved dataset, a URL of one of
            these (s3://, gs://, hf:// ...), or hub dataset.
        split: split to read; all splits by default.
        min_seconds: leave out clips shorter than this.
        max_seconds: leave out clips longer than this.
    """

    corpus: str
    split: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """Choose the device.

    Attributes:
        device: cpu, cuda, cuda:1 ...
    """

    device: str = "cpu"


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


@dataclass(frozen=True, kw_only=True)
class Tokenize(CorpusSettings, DeviceSettings):
    """Tokenize a corpus as a token dataset.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id.
        out: folder of the dataset, or an fsspec URL.
        require_text: reject clips without a transcript.
        n_codebooks: levels to keep; all by default.
        conditioning: features stored for each frame.
        batch_seconds: audio per batch; 10 on a CPU and 240 on a GPU by default.
        engine: local, accelerate (under `accelerate launch`) or ray (a cluster).
        workers: processes (by default one per core, or up to 8 readers with a GPU) or Ray actors
            (by default one per CPU or GPU of the cluster).
        shard_rows: utterances per shard.
        shard_seconds: audio per shard.
        format: arrow (the default for a folder) or parquet (the default for URLs and ray; of any
            size).
        precision: auto uses float32 on a CPU, and on a GPU the fastest that keeps the codes.
        streaming: read a hub dataset or Parquet without download or listing; each of its shards
            then becomes one shard of the dataset.
    """

    codec: str
    out: str
    require_text: bool = False
    n_codebooks: int | None = None
    conditioning: Literal["mfcc", "log_mel", "none"] = "mfcc"
    batch_seconds: float | None = None
    engine: Literal["local", "accelerate", "ray"] = "local"
    workers: int | None = None
    shard_rows: int = 64
    shard_seconds: float = 120.0
    format: Literal["arrow", "parquet"] | None = None
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    streaming: bool = False


@dataclass(frozen=True, kw_only=True)
class Score(CorpusSettings, DeviceSettings):
    """Score a codec on a corpus.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, or hub id.
        metrics: cer, mos, pesq, si_sdr, speaker, f0 and voicing, separated by commas.
        asr: speech recognizer for cer.
        mos: predictor for mos.
        mos_reference: clean speech for squim, not a clip of the corpus; without it auto is
            distillmos.
        workers: processes that score; one per core by default.
        out: .json file for the numbers.
    """

    codec: str
    metrics: list[str] = field(default_factory=lambda: ["cer", "mos", "pesq", "si_sdr"])
    asr: Literal["auto", "wav2vec2", "moonshine"] = "auto"
    mos: Literal["auto", "squim", "distillmos"] = "auto"
    mos_reference: Path | None = None
    workers: int | None = None
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Drift(CorpusSettings, DeviceSettings):
    """Measure how codecs change a corpus under repeated encoding.

    Attributes:
        codec: name in the zoo (see `tokgen codecs`), folder, hub id, mp3:KBPS or opus:KBPS; repeat
            the flag for several codecs.
        out: folder of the results.
        passes: number of encodings.
        clip_seconds: cut clips to this length; 0 keeps them whole.
        clips: measure only the first clips, this many; all by default.
        match_level: bring every output to the level of the original, as the paper does.
        phase: also measure how many codes match after shifts of up to 2 ms.
        samples: clips to write as audio.
    """

    codec: list[str]
    out: Path
    passes: int = 25
    clip_seconds: float = 5.0
    clips: int | None = None
    match_level: bool = False
    phase: bool = False
    samples: int = 2


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
