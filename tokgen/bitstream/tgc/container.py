"""Write and read .tgc files: codes in blocks that are checked and decoded one by one.

    with path.open("wb") as file:
        writer = TgcWriter(file, header, model)
        writer.write(codes)  # int64 [k, t], any t
        writer.close(n_samples)
    for event in read_events(file, find_model):  # a Header, its Blocks, an Ended; again if
        ...                                      # files were concatenated

A damaged block does not stop the reader. Its codes are -1, and it says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tokgen.bitstream.tgc.block_codes import (
    decode_block,
    decode_depth,
    encode_block,
    encode_depth,
)
from tokgen.bitstream.tgc.checksum import crc32c
from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.layout import (
    BlockHead,
    End,
    Header,
    end_bytes,
    pack_block,
    pack_header,
    short_hash,
)
from tokgen.bitstream.tgc.range_coder import DamagedStream
from tokgen.bitstream.tgc.records import Payload, read_records
from tokgen.codec.spec import DEPTH
from tokgen.results import one_line

__all__ = [
    "MAX_LOST_CODES",
    "Block",
    "Ended",
    "FindModel",
    "TgcWriter",
    "cut_block",
    "read_events",
]

MAX_LOST_CODES = 1 << 22  # missing codes of a stream; a file that misses more is refused
FindModel = Callable[[Header], EntropyModel | None]  # None for packed codes


@dataclass(frozen=True)
class Block:
    """Frames of a stream.

    Attributes:
        first_frame: number of the first frame.
        codes: int64 [k, t]; 0 past the depth, and -1 if they are missing.
        side: side information float32 [s] that blocks hold, by name; zeros if it is missing. The
            depth of each frame is in it too.
        problem: why the codes are missing; "" if they are not.
    """

    first_frame: int
    codes: NDArray[np.int64]
    side: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Ended:
    """The end of a stream.

    Attributes:
        n_frames: frames of all blocks, missing ones included.
        n_samples: length of the audio in samples; None if neither header nor end tells it.
        problem: what is wrong with the end; "" if nothing is.
    """

    n_frames: int
    n_samples: int | None
    problem: str = ""


class TgcWriter:
    """Writes one stream. The header is written at once.

    Args:
        file: binary file; it is only written to, never read or sought in.
        header: what the stream begins with.
        model: the entropy model that `header.model_hash` names; None for packed codes.
    Raises:
        ValueError: the header names another model.
    """

    def __init__(self, file: BinaryIO, header: Header, model: EntropyModel | None = None) -> None:
        _check_model(header, model)
        self._file, self._header, self._model = file, header, model
        data, self._seed = pack_header(header)
        file.write(data)
        self._codes = np.zeros((header.n_codebooks, 0), np.int64)
        self._side = {name: np.zeros(0, np.float32) for name in header.side_periods}
        self.n_frames, self.n_bytes = 0, len(data)

    def write(
        self, codes: NDArray[np.int64], side: Mapping[str, NDArray[np.float32]] | None = None
    ) -> None:
        """Add codes [k, t], and write the blocks that are complete.

        Args:
            side: values [s] that come with these frames, for each name in `header.side_periods`.
        Raises:
            ValueError: codes of another shape, or a code outside the codebook, or a depth outside
                1..k.
        """
        if codes.ndim != 2 or len(codes) != len(self._codes):
            raise ValueError(f"codes of shape {codes.shape}: expected [{len(self._codes)}, t]")
        self._codes = np.concatenate([self._codes, codes], axis=1)
        for name, values in (side or {}).items():
            if name in self._side:
                self._side[name] = np.concatenate([self._side[name], values])
        while self._codes.shape[1] > self._header.block_frames:  # the last block is never empty
            self._write_block(self._header.block_frames)

    def close(self, n_samples: int) -> None:
        """Write the last block and the end. The file stays open.

        Raises:
            ValueError: no codes, or another length than the header tells.
        """
        known = self._header.n_samples
        if known not in (None, n_samples):
            raise ValueError(f"{n_samples} samples, but the header tells {known}")
        if not self._codes.shape[1]:
            raise ValueError("no codes were written: a stream has at least one frame")
        self._write_block(self._codes.shape[1])
        self._put(end_bytes(self.n_frames, n_samples, self._seed))

    def _write_block(self, n: int) -> None:
        parts, depth = [], None
        for name, count in self._header.side_counts(self.n_frames, n).items():
            values = self._side[name][:count]
            if len(values) != count:
                raise ValueError(
                    f"{len(values)} values of {name!r} for frames {self.n_frames}.."
                    f"{self.n_frames + n - 1}: expected {count}"
                )
            if name == DEPTH:
                depth = values.astype(np.int64)
            else:
                parts.append(np.asarray(values, "<f4").tobytes())
            self._side[name] = self._side[name][count:]
        codes, self._codes = self._codes[:, :n], self._codes[:, n:]
        if depth is not None:
            parts.append(encode_depth(depth, len(codes)))
        parts.append(encode_block(codes, self._header.codebook_size, self._model, depth))
        self._put(pack_block(self.n_frames, n, b"".join(parts), self._seed))
        self.n_frames += n

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self.n_bytes += len(data)


def read_events(
    file: BinaryIO, find_model: FindModel, begin: Callable[[Header], int] = lambda _: 0
) -> Iterator[Header | Block | Ended]:
    """Read the streams of a file one after another, in bounded memory.

    Args:
        file: binary file; it need not be seekable.
        find_model: returns the entropy model that a header names.
        begin: returns the frame to begin with, for the header of each stream. Blocks before it are
            neither checked nor decoded.
    Raises:
        ValueError: not a .tgc file, a damaged first header, more than `MAX_LOST_CODES` missing
            codes, or what `find_model` raises.
    """
    stream: _Stream | None = None
    ended: Ended | None = None
    for record, skipped in read_records(file):
        if ended is not None and skipped:
            ended = replace(ended, problem=f"{skipped} bytes after the end are unreadable")
        if isinstance(record, Header):
            if stream is not None:
                yield ended or stream.cut()
            stream, ended = _Stream(record, find_model(record), begin(record)), None
            yield record
        elif stream is not None and ended is None and isinstance(record, Payload):
            yield from stream.blocks(record, skipped)
        elif stream is not None and ended is None and isinstance(record, End):
            yield from stream.gap(record.n_frames, skipped)
            ended = stream.end(record)
    if stream is not None:
        yield ended or stream.cut()


def cut_block(block: Block, header: Header, first: int, last: float = math.inf) -> Block:
    """Return the frames of a block from `first` up to, but without, `last`.

    Values of side information stay with the frame that they belong to.
    """
    skip = max(0, first - block.first_frame)
    keep = int(min(block.codes.shape[1], max(skip, last - block.first_frame)))
    before = header.side_counts(block.first_frame, skip)
    kept = header.side_counts(block.first_frame, keep)
    side = {name: values[before[name] : kept[name]] for name, values in block.side.items()}
    return replace(
        block, first_frame=block.first_frame + skip, codes=block.codes[:, skip:keep], side=side
    )


class _Stream:
    """The blocks of one stream, in order and without gaps.

    Attributes:
        at: number of the next frame.
    """

    def __init__(self, header: Header, model: EntropyModel | None, begin: int) -> None:
        _check_model(header, model)
        self._header, self._model, self._begin = header, model, begin
        self.at = self._lost = 0

    def blocks(self, record: Payload, skipped: int) -> Iterator[Block]:
        """Yield the frames that are missing before a block, and the block."""
        head = record.head
        if head.first_frame < self.at:
            return  # a block that was repeated
        yield from self.gap(head.first_frame, skipped)
        self.at += head.n_frames
        if self.at <= self._begin:
            return
        try:
            yield self._decode(head, record.data)
        except ValueError as error:
            yield self._missing(head.first_frame, head.n_frames, one_line(str(error)))

    def gap(self, to: int, skipped: int) -> Iterator[Block]:
        """Yield the frames that are missing before frame `to`."""
        first, self.at = self.at, max(self.at, to)
        if first < to and to > self._begin:
            why = f"{skipped} bytes are unreadable" if skipped else "no block holds them"
            yield self._missing(first, to - first, why)

    def end(self, record: End) -> Ended:
        """Return what an end says, if it agrees with the header and the blocks."""
        known = self._header.n_samples
        if record.n_frames != self.at or known not in (None, record.n_samples):
            return replace(self.cut(), problem="its end tells another length")
        return Ended(self.at, record.n_samples)

    def cut(self) -> Ended:
        """Return the end of a stream that has none."""
        return Ended(self.at, self._header.n_samples, "its end is missing")

    def _missing(self, first_frame: int, n: int, problem: str) -> Block:
        levels = self._header.n_codebooks
        self._lost += n * levels
        if self._lost > MAX_LOST_CODES:
            raise ValueError(
                f"{self._lost} codes are missing up to frame {first_frame + n}: at most "
                f"{MAX_LOST_CODES} can be; the file is damaged"
            )
        counts = self._header.side_counts(first_frame, n)
        side = {name: np.zeros(count, np.float32) for name, count in counts.items()}
        return Block(first_frame, np.full((levels, n), -1), side, problem)

    def _decode(self, head: BlockHead, data: bytes) -> Block:
        if crc32c(data) != head.crc:
            raise DamagedStream("wrong checksum" if len(data) == head.n_bytes else "cut short")
        counts = self._header.side_counts(head.first_frame, head.n_frames)
        side, at, depth = {}, 0, None
        for name, count in counts.items():
            if name == DEPTH:
                continue
            if at + 4 * count > len(data):
                raise DamagedStream("cut short")
            side[name] = np.frombuffer(data, "<f4", count, at).astype(np.float32)
            at += 4 * count
            if not np.isfinite(side[name]).all():
                raise DamagedStream(f"side information {name!r} holds NaN or infinity")
        levels, size = self._header.n_codebooks, self._header.codebook_size
        if self._header.has_depth:
            depth, n_bytes = decode_depth(data[at:], head.n_frames, levels)
            side[DEPTH], at = depth.astype(np.float32), at + n_bytes
        codes = decode_block(data[at:], levels, head.n_frames, size, self._model, depth)
        return Block(head.first_frame, codes, side)


def _check_model(header: Header, model: EntropyModel | None) -> None:
    found = "" if model is None else short_hash(model.model_hash)
    if found != header.model_hash:
        raise ValueError(
            f"the stream was made with the entropy model {header.model_hash!r}, not with {found!r}"
        )
