"""Find the parts of files that were joined: chained Ogg and concatenated MP3.

A decoder would stop after the first part. Each part is a file of its own, with its own rate. AAC
files need no parts, but have no header that tells their length.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from tokgen.audio.sources import AudioError

__all__ = ["MOST_PARTS", "Form", "Part", "adts_seconds", "find_parts"]

MOST_PARTS = 10_000
Form = tuple[int, int, bool]  # of MP3 frames: version and layer, rate, and whether they are mono
_CHUNK = 1 << 20  # bytes read at a time
_OGG_START = b"OggS\0\2"  # a page that starts a stream

# MP3 (ISO 11172-3 and 13818-3), layers I to III: kbps by bitrate index, Hz by rate index.
_KBPS = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),  # MPEG-1, layer I
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),  # MPEG-2 and 2.5
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AAC_HZ = (
    *(96000, 88200, 64000, 48000, 44100, 32000, 24000),
    *(22050, 16000, 12000, 11025, 8000, 7350),
)
_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass
class Part:
    """A part of a file.

    Attributes:
        start, stop: its first byte, and the one after its last.
        n_frames: MP3 frames that were counted.
        frame_size: samples per MP3 frame.
        has_info: True if an Info frame tells the length.
    """

    start: int
    stop: int = 0
    n_frames: int = 0
    frame_size: int = 0
    has_info: bool = False

    @property
    def n_samples(self) -> int | None:
        """Samples of an MP3 file without an Info frame, for which decoders guess the length."""
        return None if self.has_info else self.n_frames * self.frame_size or None


def find_parts(file: BinaryIO, label: str) -> list[Part]:
    """Return the parts of a file, one if it was not joined. Together they are the file.

    Args:
        file: an open, seekable file. Its position changes.
        label: name for messages.
    Raises:
        AudioError: more than `MOST_PARTS` parts.
    """
    window = _Window(file)
    head = window.read(0, 10)
    parts = [Part(0)]
    if head.startswith(b"OggS"):
        parts = _ogg_parts(window)
    elif head.startswith(b"ID3") or _frame_size(head):
        parts = _mp3_parts(window)
    if len(parts) > MOST_PARTS:
        raise AudioError(label, f"joined from more than {MOST_PARTS} files; split it")
    for part, following in zip(parts, [*parts[1:], Part(window.size)], strict=True):
        part.stop = following.start
    return parts


def adts_seconds(file: BinaryIO) -> float | None:
    """Return the duration of AAC without a container (ADTS), None if the file is no ADTS."""
    window, position, counts = _Window(file), 0, dict.fromkeys(range(len(_AAC_HZ)), 0)
    while tag := _tag_size(window, position):
        position += tag
    while len(head := window.read(position, 7)) == 7:
        rate, size = head[2] >> 2 & 15, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        if head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or rate not in counts or size < 7:
            break
        counts[rate] += 1 + (head[6] & 3)
        position += size
    return sum(1024 * n / _AAC_HZ[rate] for rate, n in counts.items()) or None


class _Window:
    """Bytes of a file at any position, read in large pieces."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size = file, file.seek(0, os.SEEK_END)
        self._start, self._data = 0, b""

    def read(self, position: int, n: int) -> bytes:
        """Return up to n bytes."""
        if not self._start <= position <= position + n <= self._start + len(self._data):
            self._file.seek(position)
            self._start, self._data = position, self._file.read(max(n, _CHUNK))
        at = position - self._start
        return self._data[at : at + n]

    def find(self, pattern: bytes, position: int, stop: int | None = None) -> int:
        """Return the next position of a pattern, or -1 if there is none before `stop`."""
        stop = self.size if stop is None else stop
        while position < stop:
            self.read(position, len(pattern))
            found = self._data.find(pattern, position - self._start, stop - self._start)
            if found >= 0:
                return self._start + found
            position = max(position, self._start + len(self._data) - len(pattern)) + 1
        return -1


def _ogg_parts(window: _Window) -> list[Part]:
    """Return the links of a chain. Streams that start side by side are one link."""
    parts, end = [Part(0)], 0
    position = window.find(_OGG_START, 0)
    while position >= 0 and len(parts) <= MOST_PARTS:
        if position not in (0, end):
            parts.append(Part(position))
        head = window.read(position, 27 + 255)
        lacing = head[27 : 27 + head[26]] if len(head) > 26 else b""
        end = position + 27 + len(lacing) + sum(lacing)
        position = window.find(_OGG_START, position + 4)
    return parts


def _mp3_parts(window: _Window) -> list[Part]:
    """Return the MP3 files in a file. A tag, an Info frame or another format starts a new one."""
    parts, position, at_start = [Part(0)], 0, True
    form: Form | None = None
    while position < window.size and len(parts) <= MOST_PARTS:
        if tag := _tag_size(window, position):
            if window.read(position, 3) == b"ID3" and not at_start:
                parts.append(Part(position))
                at_start = True
            position += tag
            continue
        head = window.read(position, 4)
        size = _frame_size(head)
        info = _info(window, position) if size else None
        if not size or (info is None and not _follows(window, position + size, head, form)):
            position = _next_frame(window, position + 1)
            continue
        found = _format(head)
        if not at_start and (info is not None or found != form):
            parts.append(Part(position))
        if info is not None:
            parts[-1].has_info = True
        parts[-1].n_frames += 1
        parts[-1].frame_size = _samples(head)
        length = _length(window, position, size, info)
        at_start, form = False, found if length == size else None  # None: the part ends
        position += length
    return parts


def _length(window: _Window, position: int, size: int, info: int | None) -> int:
    """Return the bytes to the next frame to look at: the next one, or the one after the part."""
    if not info:
        return size
    rest = window.size - position - info
    if rest <= size + 64:  # the part is the last; some encoders do not count their Info frame
        return window.size - position
    after = window.read(position + info, 10)
    is_end = after[:3] in (b"ID3", b"TAG") or after[:8] == b"APETAGEX"
    return info if is_end or _frame_size(after[:4]) else size


def _tag_size(window: _Window, position: int) -> int:
    """Return the size of a tag (ID3v2, ID3v1 or APE) at a position, 0 if there is none."""
    head = window.read(position, 32)
    if head.startswith(b"ID3") and len(head) >= 10 and max(head[6:10]) < 128:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return size + (20 if head[5] & 16 else 10)
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"APETAGEX") and len(head) == 32:
        return 32 + (int.from_bytes(head[12:16], "little") if head[23] & 32 else 0)
    return 0


def _frame_size(head: bytes) -> int:
    """Return the bytes of the MP3 frame that starts with `head`, 0 if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3:
        return 0
    bits = 1000 * _KBPS[3 if version == 3 else 2, layer][bitrate - 1]
    hz = _HZ[version][rate]
    if layer == 3:
        return (12 * bits // hz + padding) * 4
    return (72 if layer == 1 and version != 3 else 144) * bits // hz + padding


def _samples(head: bytes) -> int:
    """Return the samples of an MP3 frame."""
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return 384 if layer == 3 else 576 if layer == 1 and version != 3 else 1152


def _format(head: bytes) -> Form:
    """Return version and layer, rate, and whether a frame is mono."""
    return head[1] & 0x1E, head[2] & 0x0C, head[3] >> 6 == 3


def _follows(window: _Window, position: int, head: bytes, form: Form | None) -> bool:
    """Return True if a frame, a tag or the end follows. A new format needs two frames."""
    after = window.read(position, 4)
    if _frame_size(after):
        return _format(head) in (form, _format(after))
    return position >= window.size or bool(_tag_size(window, position))


def _next_frame(window: _Window, position: int) -> int:
    """Return the position of the next byte with which a frame or a tag can start."""
    frame = window.find(b"\xff", position)
    stop = frame if frame >= 0 else window.size
    tag = window.find(b"ID3", position, stop)
    return tag if tag >= 0 else stop


def _info(window: _Window, position: int) -> int | None:
    """Return the bytes that an Info (Xing) frame promises, 0 if it does not tell.

    None if no Info frame starts at the position.
    """
    head = window.read(position, 4 + 32 + 16)
    mono, old = head[3] >> 6 == 3, head[1] >> 3 & 3 == 3
    at = 4 + ((17 if mono else 32) if old else (9 if mono else 17))
    if head[at : at + 4] not in (b"Xing", b"Info") or len(head) < at + 16:
        return None
    flags = head[at + 7]
    if not flags & 2:
        return 0
    place = at + (12 if flags & 1 else 8)
    return int.from_bytes(head[place : place + 4], "big")
