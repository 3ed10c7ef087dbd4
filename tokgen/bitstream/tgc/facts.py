"""Describe a .tgc file without its codec.

describe_file("speech.tgc")  # codec, entropy model, length, bytes and damage
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokgen.bitstream.tgc.block_codes import decode_depth
from tokgen.bitstream.tgc.checksum import crc32c
from tokgen.bitstream.tgc.layout import BlockHead, End, Header
from tokgen.bitstream.tgc.range_coder import DamagedStream
from tokgen.bitstream.tgc.records import Payload, read_records
from tokgen.results import Grid, Result, printable

__all__ = ["StreamFacts", "TgcFacts", "describe_file"]


@dataclass
class StreamFacts:
    """Facts about one stream of a .tgc file.

    Attributes:
        codec, weight_hash, mode, model_hash, sample_rate, channels, n_codebooks, codebook_size: as
            in `tokgen.bitstream.tgc.layout.Header`.
        n_samples: length in samples; None if the file does not tell it.
        n_frames: frames.
        n_blocks: blocks that are readable.
        n_damaged: blocks with a wrong checksum, or a depth that is none.
        n_unreadable: bytes that belong to no record.
        complete: the stream has its end.
        mean_depth: levels per frame of the blocks that are readable; None if all frames have
            `n_codebooks`.
        depth_bits: bits that the depth of these blocks takes; 0 if all frames have `n_codebooks`.
        encoder_hash: as in `Header`; that of all weights if the file has no other.
    """

    codec: str
    weight_hash: str
    mode: str
    model_hash: str
    sample_rate: int
    channels: int
    n_codebooks: int
    codebook_size: int
    n_samples: int | None
    n_frames: int = 0
    n_blocks: int = 0
    n_damaged: int = 0
    n_unreadable: int = 0
    complete: bool = False
    mean_depth: float | None = None
    depth_bits: int = 0
    encoder_hash: str = ""

    @property
    def seconds(self) -> float | None:
        return None if self.n_samples is None else self.n_samples / self.sample_rate

    @property
    def damaged(self) -> bool:
        return bool(self.n_damaged or self.n_unreadable or not self.complete)


@dataclass(frozen=True)
class TgcFacts(Result):
    """Facts about a .tgc file.

    Attributes:
        path: the file.
        n_bytes: size.
        streams: one, or several that were concatenated.
    """

    path: Path
    n_bytes: int
    streams: list[StreamFacts]

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 1 if the file is damaged."""
        return int(any(s.damaged for s in self.streams))

    def parts(self) -> list[Grid | str]:
        lines: list[Grid | str] = [f"{self.path}: {self.n_bytes} bytes"]
        for s in self.streams:
            facts = {
                "codec": printable(s.codec),
                "weights": s.weight_hash,
                "encoder": s.encoder_hash,
                "entropy": f"{s.mode} {s.model_hash}".strip(),
                "audio": f"{s.sample_rate} Hz, {s.channels} channels",
                "length": "unknown" if s.seconds is None else f"{s.seconds:.2f} s",
                "codes": f"{s.n_codebooks} levels of {s.codebook_size} x {s.n_frames} frames",
                "blocks": f"{s.n_blocks}, {s.n_damaged} damaged",
            }
            if s.mean_depth is not None:
                facts["depth"] = (
                    f"{s.mean_depth:.2f} levels per frame, {s.depth_bits / 8:.0f} bytes"
                )
            if s.n_unreadable:
                facts["unreadable"] = f"{s.n_unreadable} bytes"
            if not s.complete:
                facts["end"] = "missing: the file was cut off"
            lines += [f"{key:12} {value}" for key, value in facts.items()]
        seconds = [s.seconds for s in self.streams if s.seconds is not None]
        if len(seconds) == len(self.streams):
            lines.append(f"{'bitrate':12} {8 * self.n_bytes / sum(seconds) / 1000:.2f} kbps")
        return lines

    def records(self) -> list[dict[str, Any]]:
        return [{"path": str(self.path), **asdict(stream)} for stream in self.streams]

    def to_dict(self) -> dict[str, Any]:
        streams = [asdict(stream) for stream in self.streams]
        return {"path": str(self.path), "n_bytes": self.n_bytes, "streams": streams}


def describe_file(file: str | Path) -> TgcFacts:
    """Read what a .tgc file tells about itself, and check its blocks. No codec is loaded.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a .tgc file, or its header is damaged.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    streams: list[StreamFacts] = []
    counted: list[_Depth] = []
    try:
        with path.open("rb") as opened:
            for record, skipped in read_records(opened):
                if streams:
                    streams[-1].n_unreadable += skipped
                if isinstance(record, Header):
                    streams.append(_facts(record))
                    counted.append(_Depth(record))
                elif isinstance(record, Payload):
                    stream, head = streams[-1], record.head
                    stream.n_blocks += 1
                    if crc32c(record.data) != head.crc or not counted[-1].add(head, record.data):
                        stream.n_damaged += 1
                    stream.n_frames = max(stream.n_frames, head.first_frame + head.n_frames)
                elif isinstance(record, End):
                    streams[-1].n_samples, streams[-1].complete = record.n_samples, True
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for stream, depth in zip(streams, counted, strict=True):
        stream.mean_depth, stream.depth_bits = depth.mean, depth.n_bits
    return TgcFacts(path, path.stat().st_size, streams)


class _Depth:
    """Counts the levels of a stream's frames, if they vary."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._n_frames = self._n_levels = self.n_bits = 0

    def add(self, head: BlockHead, data: bytes) -> bool:
        """Count a block; returns whether its depth is sound."""
        if not self._header.has_depth:
            return True
        counts = self._header.side_counts(head.first_frame, head.n_frames)
        at = 4 * (sum(counts.values()) - head.n_frames)
        try:
            depth, n_bytes = decode_depth(data[at:], head.n_frames, self._header.n_codebooks)
        except DamagedStream:
            return False
        self._n_frames += head.n_frames
        self._n_levels += int(depth.sum())
        self.n_bits += 8 * n_bytes
        return True

    @property
    def mean(self) -> float | None:
        return self._n_levels / self._n_frames if self._n_frames else None


def _facts(header: Header) -> StreamFacts:
    h = header
    about = h.codec, h.weight_hash, h.mode, h.model_hash, h.sample_rate, h.channels
    encoder = h.encoder_hash or h.weight_hash
    return StreamFacts(*about, h.n_codebooks, h.codebook_size, h.n_samples, encoder_hash=encoder)
