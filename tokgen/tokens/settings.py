"""Settings of tokenizing, the same for the verb and for recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokgen.runs.checks import check_least, check_positive, check_rate

__all__ = ["TokenizeSettings", "check_codes", "check_continuous"]


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings:
    """Settings of tokenizing.

    Attributes:
        require_text: reject clips without a transcript.
        n_codebooks: levels to keep; all by default.
        beam: paths of the beam search that chooses the codes; 1 is greedy. By default the codec's
            own, which is greedy unless it was saved with a beam.
        level: how many levels frames of a codec of variable bitrate keep; above 0.
        bitrate: mean kbps of each utterance with a codec of variable bitrate, in place of level.
        conditioning: features stored for each frame.
        batch_seconds: audio per batch; 10 on a CPU and 240 on a GPU by default.
        engine: local, accelerate (under `accelerate launch`) or ray (a cluster).
        workers: processes (by default one per core, or up to 8 readers with a GPU) or Ray actors
            (by default one per CPU or GPU of the cluster).
        shard_rows: utterances per shard.
        shard_seconds: audio per shard.
        format: parquet, which `datasets.load_dataset` opens, or arrow in a local folder, which is
            memory-mapped without a copy.
        codes: lists of 16-bit numbers, or packed into ceil(log2(codebook_size)) bits each, which
            `load_tokens` unpacks.
        precision: auto uses float32 on a CPU and for latents, and on a GPU the fastest that keeps
            the codes.
        streaming: read a hub dataset or Parquet without download or listing; each of its shards
            then becomes one shard of the dataset.
    """

    require_text: bool = False
    n_codebooks: int | None = None
    beam: int | None = None
    level: float | None = None
    bitrate: float | None = None
    conditioning: Literal["mfcc", "log_mel", "none"] = "mfcc"
    batch_seconds: float | None = None
    engine: Literal["local", "accelerate", "ray"] = "local"
    workers: int | None = None
    shard_rows: int = 64
    shard_seconds: float = 120.0
    format: Literal["parquet", "arrow"] = "parquet"
    codes: Literal["lists", "packed"] = "lists"
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    streaming: bool = False

    def __post_init__(self) -> None:
        check_least(self, workers=0, shard_rows=1, n_codebooks=1, beam=1)
        check_positive(self, "batch_seconds", "shard_seconds")
        check_rate(self)
        check_codes(self.codes, self.format)


def check_codes(codes: str, format: str) -> None:
    """Raise ValueError for an unknown form of codes, or one that the format cannot have."""
    if codes not in ("lists", "packed"):
        raise ValueError(f"codes {codes!r} is unknown; use lists or packed")
    if codes == "packed" and format == "arrow":
        raise ValueError(
            "codes packed with format arrow, which is memory-mapped as it is: use parquet"
        )


def check_continuous(name: str, **given: object) -> None:
    """Raise ValueError if settings of codes are given for a continuous codec.

    Args:
        name: of the codec.
        given: settings by name; None for those that are not set.
    """
    found = [f"{key} = {value}" for key, value in given.items() if value is not None]
    if found:
        raise ValueError(
            f"{', '.join(found)}: only for codes, and {name} is a continuous codec, whose latents "
            f"are kept whole as float16; leave {'it' if len(found) == 1 else 'them'} out"
        )
