"""Find the readable records of a .tgc file, also of a damaged one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from tokgen.bitstream.tgc.layout import (
    BLOCK,
    BLOCK_BYTES,
    END,
    END_BYTES,
    MAGIC,
    BlockHead,
    End,
    Header,
    header_length,
    parse_block,
    parse_end,
    parse_header,
)

__all__ = ["Payload", "read_records"]

_MARKS = re.compile(b"|".join(map(re.escape, (MAGIC, BLOCK, END))))
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Payload:
    """A block whose beginning is sound. Its data may be damaged, or shorter than they should be."""

    head: BlockHead
    data: bytes


def read_records(file: BinaryIO) -> Iterator[tuple[Header | Payload | End | None, int]]:
    """Yield the records that are readable, and the number of unreadable bytes before each.

    None stands for the end of the file. A damaged record is passed over as a whole, so that the
    time is linear in the size of the file.

    Raises:
        ValueError: not a .tgc file, or a damaged first header.
    """
    source, header = _Source(file), None
    seed = skipped = 0
    if source.peek(4) != MAGIC:
        what = "it is not a .tgc file" if source.peek(1) else "it is empty"
        more = "make one with `tokgen compress`; `tokgen decode` reads files of `tokgen encode`"
        raise ValueError(f"{what}: {more}")
    while start := source.peek(4):
        found: Header | Payload | End | None = None
        if start == MAGIC:
            size = max(header_length(source.peek(8)), 8)
            try:
                parsed, seed = parse_header(source.peek(size))
                header = found = parsed
            except ValueError:
                if header is None:
                    raise
            source.skip(size)
            skipped += size * (found is None)
        elif header and start == BLOCK and (head := parse_block(source.peek(BLOCK_BYTES), seed)):
            source.skip(BLOCK_BYTES)
            if head.fits(header):
                found = Payload(head, source.peek(head.n_bytes))
                source.skip(head.n_bytes)
            skipped += BLOCK_BYTES * (found is None)
        elif header and start == END and (end := parse_end(source.peek(END_BYTES), seed)):
            source.skip(END_BYTES)
            found = end
        else:
            skipped += source.scan()
        if found is not None:
            yield found, skipped
            skipped = 0
    yield None, skipped


class _Source:
    """Looks ahead in a binary file."""

    def __init__(self, file: BinaryIO) -> None:
        self._read = getattr(file, "read1", file.read)  # what a pipe has, without waiting
        self._held = bytearray()

    def peek(self, n: int) -> bytes:
        """Return the next `n` bytes, fewer at the end of the file."""
        while len(self._held) < n and (more := self._read(_CHUNK)):
            self._held += more
        return bytes(self._held[:n])

    def skip(self, n: int) -> None:
        """Drop bytes that `peek` returned."""
        del self._held[:n]

    def scan(self) -> int:
        """Drop at least one byte, up to what may be the next record; returns how many."""
        self.peek(_CHUNK)
        found = _MARKS.search(self._held, 1)
        n = found.start() if found else max(1, len(self._held) - 3)
        self.skip(n)
        return n
