"""Settings of exports. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokgen.runs.checks import check_least

__all__ = ["FORMATS", "LAYOUTS", "ExportSettings"]

LAYOUTS = ("flat", "offsets", "delay")
FORMATS = ("jsonl", "webdataset", "lhotse")


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of an export.

    Attributes:
        layout: flat has all levels of a frame, then the next frame; offsets does too, and level k
            counts from k times codebook_size; delay has one row per level, level k is k steps late.
        format: jsonl has a line per utterance, webdataset has tar shards, lhotse has a manifest of
            cuts with NumPy files.
        shard_rows: utterances per shard of webdataset.
    """

    layout: Literal["flat", "offsets", "delay"] = "flat"
    format: Literal["jsonl", "webdataset", "lhotse"] = "jsonl"
    shard_rows: int = 1000

    def __post_init__(self) -> None:
        for name, known in (("layout", LAYOUTS), ("format", FORMATS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}: known are {', '.join(known)}")
        check_least(self, shard_rows=1)
