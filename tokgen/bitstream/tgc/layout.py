"""The records of .tgc files as bytes: headers, blocks and ends. docs/tgc.md describes each byte."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tokgen.bitstream.tgc.checksum import crc32c
from tokgen.bitstream.tgc.entropy import DEPTH_MODES, MODES
from tokgen.bitstream.tgc.range_coder import MAX_SYMBOLS
from tokgen.codec.spec import DEPTH, MAX_SAMPLE_RATE

__all__ = [
    "BLOCK",
    "BLOCK_BYTES",
    "END",
    "END_BYTES",
    "MAGIC",
    "MAX_BLOCK_CODES",
    "MAX_DEPTH",
    "VERSION",
    "VERSION_WITH_DEPTH",
    "BlockHead",
    "End",
    "Header",
    "end_bytes",
    "header_length",
    "pack_block",
    "pack_header",
    "parse_block",
    "parse_end",
    "parse_header",
    "short_hash",
]

MAGIC, BLOCK, END = b"\x89TGC", b"TGCB", b"TGCE"
VERSION, VERSION_WITH_DEPTH = 1, 2  # of streams with a depth for each frame
MAX_BLOCK_CODES = 1 << 16  # frames times levels of a block
MAX_DEPTH = 255  # levels of streams with a depth for each frame
_MAX_COUNTS = 1 << 22  # levels times codebook_size
_MAX_HOP = 1 << 20  # samples per frame
_MAX_NAMES = 8  # kinds of side information
_UNKNOWN = (1 << 64) - 1  # n_samples of a stream whose length is not known at its start
_FIXED = struct.Struct("<4sBBHIQIBHIH8s8s")
_SIDE = struct.Struct("<II")
_BLOCK = struct.Struct("<4sIHII")
_END = struct.Struct("<4sIQ")
_CRC = struct.Struct("<I")
_HASH = 8  # bytes of a hash
BLOCK_BYTES = _BLOCK.size + _CRC.size
END_BYTES = _END.size + _CRC.size


@dataclass(frozen=True)
class Header:
    """The header of a stream: the codec, the entropy model and the audio.

    Attributes:
        codec: name of the codec that made the codes.
        weight_hash: `short_hash` of the codec's weights.
        mode: one of `tokgen.bitstream.tgc.entropy.MODES`.
        model_hash: `short_hash` of the entropy model; "" for packed codes.
        sample_rate: Hz.
        hop_length: samples per frame.
        channels: channels of the audio.
        n_codebooks: levels k of each frame.
        codebook_size: entries per level.
        block_frames: frames of each block but the last.
        n_samples: length of the audio in samples; None if it was not known at the start.
        side: side information float32 [S] of the whole stream, by name.
        side_periods: frames per value of the side information that blocks hold, by name. `depth`,
            with one value for each frame, makes a stream of variable depth.
        encoder_hash: `short_hash` of the weights of encoder and quantizer, see
            `tokgen.codec.identity`; "" in older files, and if it is that of all weights.
    """

    codec: str
    weight_hash: str
    mode: str
    model_hash: str
    sample_rate: int
    hop_length: int
    channels: int
    n_codebooks: int
    codebook_size: int
    block_frames: int
    n_samples: int | None = None
    side: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    side_periods: Mapping[str, int] = field(default_factory=dict)
    encoder_hash: str = ""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("sample_rate", 1, MAX_SAMPLE_RATE),
            ("hop_length", 1, _MAX_HOP),
            ("channels", 1, 255),
            ("codebook_size", 2, MAX_SYMBOLS),
            ("n_codebooks", 1, min(_MAX_COUNTS // max(self.codebook_size, 1), 65_535)),
            ("block_frames", 1, min(MAX_BLOCK_CODES // max(self.n_codebooks, 1), 65_535)),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, but must be in {low}..{high}")
        if self.n_samples is not None and not 1 <= self.n_samples < _UNKNOWN:
            raise ValueError(f"n_samples is {self.n_samples}, but must be at least 1")
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} is unknown; modes are {', '.join(MODES)}")
        if len(self.codec.encode()) > 255:
            raise ValueError(
                f"the codec's name has {len(self.codec)} characters: at most 255 bytes"
            )
        hashes = {"weight_hash": self.weight_hash, "model_hash": self.model_hash}
        if self.mode == "packed" and not self.model_hash:
            del hashes["model_hash"]
        if self.encoder_hash:
            hashes["encoder_hash"] = self.encoder_hash
        for what, text in hashes.items():
            if not re.fullmatch("[0-9a-f]{16}", text):
                raise ValueError(f"{what} is {text[:80]!r}, but must be 16 hex digits")
        if len(self.side) + len(self.side_periods) > _MAX_NAMES:
            raise ValueError(f"more than {_MAX_NAMES} kinds of side information")
        for name, period in self.side_periods.items():
            if not 1 <= period < 1 << 32:
                raise ValueError(f"{period} frames per value of {name!r}: must be at least 1")
        if DEPTH in self.side or self.side_periods.get(DEPTH, 1) != 1:
            raise ValueError(f"side information {DEPTH!r} must have a value for each frame")
        if self.has_depth and self.mode not in DEPTH_MODES:
            raise ValueError(
                f"entropy = {self.mode} needs all levels of each frame, but the depth of this "
                "stream varies: use entropy = packed"
            )
        if self.has_depth and self.n_codebooks > MAX_DEPTH:
            raise ValueError(
                f"n_codebooks is {self.n_codebooks}, but a stream of variable depth must have at "
                f"most {MAX_DEPTH}"
            )
        for name, values in self.side.items():
            if not np.isfinite(values).all():
                raise ValueError(f"side information {name!r} holds NaN or infinity")

    @property
    def has_depth(self) -> bool:
        """True if each frame has a number of levels of its own."""
        return DEPTH in self.side_periods

    def side_counts(self, first_frame: int, n_frames: int) -> dict[str, int]:
        """Return the number of values of side information in some frames, by name."""
        last = first_frame + n_frames
        return {n: -(-last // p) - -(-first_frame // p) for n, p in self.side_periods.items()}

    def max_payload(self, first_frame: int, n_frames: int) -> int:
        """Return the most bytes that a block's payload can have."""
        side = sum(self.side_counts(first_frame, n_frames).values())
        return 4 * (side + n_frames * self.n_codebooks) + 16 + 16 * self.has_depth


@dataclass(frozen=True)
class BlockHead:
    """The head of a block: its frames, and the size and checksum of its payload."""

    first_frame: int
    n_frames: int
    n_bytes: int
    crc: int

    def fits(self, header: Header) -> bool:
        """Return whether a block of this size can belong to a stream."""
        most = header.max_payload(self.first_frame, self.n_frames)
        return 1 <= self.n_frames <= header.block_frames and self.n_bytes <= most


@dataclass(frozen=True)
class End:
    """The end of a stream: its numbers of frames and samples."""

    n_frames: int
    n_samples: int


def short_hash(text: str) -> str:
    """Return the first 64 bits of a SHA-256 in hex, by which streams name weights and models."""
    return text[:16]


def pack_header(header: Header) -> tuple[bytes, int]:
    """Return a header's bytes, and their checksum, which the checksums of its blocks go on from.

    Raises:
        ValueError: too much side information.
    """
    name = header.codec.encode()
    rest = bytes([len(name)]) + name + bytes([len(header.side) + len(header.side_periods)])
    for kind, values in header.side.items():
        packed = np.asarray(values, "<f4")
        rest += _text(kind) + _SIDE.pack(0, packed.size) + packed.tobytes()
    for kind, period in header.side_periods.items():
        rest += _text(kind) + _SIDE.pack(period, 0)
    rest += bytes.fromhex(header.encoder_hash)
    size = _FIXED.size + len(rest) + _CRC.size
    if size > 65_535:
        raise ValueError(f"a header of {size} bytes: at most 65535; it holds the side information")
    fixed = _FIXED.pack(
        MAGIC,
        VERSION_WITH_DEPTH if header.has_depth else VERSION,
        MODES.index(header.mode),
        size,
        header.sample_rate,
        _UNKNOWN if header.n_samples is None else header.n_samples,
        header.hop_length,
        header.channels,
        header.n_codebooks,
        header.codebook_size,
        header.block_frames,
        bytes.fromhex(header.weight_hash),
        bytes.fromhex(header.model_hash or "0" * 16),
    )
    crc = crc32c(fixed + rest)
    return fixed + rest + _CRC.pack(crc), crc


def header_length(start: bytes) -> int:
    """Return the length that a header's first 8 bytes tell."""
    return int.from_bytes(start[6:8], "little")


def parse_header(data: bytes) -> tuple[Header, int]:
    """Read what `pack_header` returned.

    Raises:
        ValueError: damaged, of another version, or with a value out of range.
    """
    if len(data) < _FIXED.size + 2 + _CRC.size or data[:4] != MAGIC:
        raise ValueError("its header is cut short")
    if data[4] not in (VERSION, VERSION_WITH_DEPTH):
        raise ValueError(
            f"it has version {data[4]}, but this tokgen reads {VERSION} and "
            f"{VERSION_WITH_DEPTH}: update tokgen"
        )
    body, crc = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])[0]
    if crc32c(body) != crc:
        raise ValueError("its header is damaged (wrong checksum): copy or download it again")
    _, _, mode, _, rate, n, hop, channels, levels, size, frames, weights, model = _FIXED.unpack(
        body[: _FIXED.size]
    )
    if mode >= len(MODES):
        raise ValueError(f"mode {mode} is unknown: update tokgen")
    try:
        name, at = _read_text(body, _FIXED.size)
        side: dict[str, NDArray[np.float32]] = {}
        periods: dict[str, int] = {}
        n_kinds, at = body[at], at + 1
        for _ in range(n_kinds):
            kind, at = _read_text(body, at)
            period, count = _SIDE.unpack_from(body, at)
            at += _SIDE.size
            if period:
                periods[kind] = period
                continue
            side[kind] = np.frombuffer(body, "<f4", count, at).astype(np.float32)
            at += 4 * count
    except (IndexError, struct.error, ValueError) as error:
        raise ValueError("its header is cut short") from error
    encoder = body[at : at + _HASH] if len(body) >= at + _HASH else b""
    if (DEPTH in periods) != (data[4] == VERSION_WITH_DEPTH):
        raise ValueError(
            f"it has version {data[4]}, but streams with {DEPTH!r}, and no others, have "
            f"{VERSION_WITH_DEPTH}: the file is damaged"
        )
    return Header(
        name,
        weights.hex(),
        MODES[mode],
        "" if MODES[mode] == "packed" else model.hex(),
        *(rate, hop, channels, levels, size, frames),
        None if n == _UNKNOWN else n,
        side,
        periods,
        encoder.hex(),
    ), crc


def pack_block(first_frame: int, n_frames: int, payload: bytes, seed: int) -> bytes:
    """Return a block's bytes. `seed` is the checksum of the header that it belongs to."""
    head = _BLOCK.pack(BLOCK, first_frame, n_frames, len(payload), crc32c(payload))
    return head + _CRC.pack(crc32c(head, seed)) + payload


def parse_block(data: bytes, seed: int) -> BlockHead | None:
    """Read a block's first `BLOCK_BYTES` bytes; None if they are not those of the stream."""
    if len(data) != BLOCK_BYTES or not _sound(data, seed):
        return None
    return BlockHead(*_BLOCK.unpack_from(data)[1:])


def end_bytes(n_frames: int, n_samples: int, seed: int) -> bytes:
    """Return the bytes of an end. `seed` is as for `pack_block`."""
    head = _END.pack(END, n_frames, n_samples)
    return head + _CRC.pack(crc32c(head, seed))


def parse_end(data: bytes, seed: int) -> End | None:
    """Read what `end_bytes` returned; None if it is not that of the stream."""
    if len(data) != END_BYTES or not _sound(data, seed):
        return None
    return End(*_END.unpack_from(data)[1:])


def _sound(data: bytes, seed: int) -> bool:
    return crc32c(data[: -_CRC.size], seed) == _CRC.unpack(data[-_CRC.size :])[0]


def _text(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    """Return the text at a position, which begins with its length, and the position after it."""
    end = at + 1 + data[at]
    if end > len(data):
        raise IndexError(end)
    return data[at + 1 : end].decode(), end
