"""Files behind a URL, read whole or by ranges.

If a store does not answer, the request is repeated. If it fails again, a `StoreError` stops the
run. A missing file is an error of that file only.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tokgen.audio.files import AudioError
from tokgen.storage import StoreError, find_filesystem, patiently

__all__ = [
    "LARGEST_BYTES",
    "RangeReader",
    "RemoteFile",
    "as_audio_error",
    "read_audio_file",
    "without_query",
]

LARGEST_BYTES = 32 << 30  # more than 24 hours of 48 kHz stereo
# Stores' names for a file's checksum and for the time of its last change, preferred ones first.
_STAMPS = (
    *("sha256", "xet_hash", "blob_id", "md5Hash", "md5", "content_md5", "Content-MD5", "crc32c"),
    *("checksum", "ETag", "etag", "Digest"),
    *("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified", "created"),
)


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL. It holds no connection, so it can be pickled.

    Attributes:
        url: of the file.
        size: bytes; None if unknown.
        stamp: size, and checksum or time of the last change; None if both are unknown.
    """

    url: str
    size: int | None = None
    stamp: str | None = None

    @classmethod
    def of(cls, url: str, info: Mapping[str, Any]) -> RemoteFile:
        """Make a `RemoteFile` from the file system's info about it."""
        size = info.get("size")
        found = next((f"{k} {info[k]}" for k in _STAMPS if info.get(k)), None)
        return cls(url, size, None if found is None else f"{size} bytes, {found}")

    @classmethod
    def find(cls, url: str) -> RemoteFile:
        """Ask the store for a file's size and stamp.

        Raises:
            AudioError: the file does not exist.
            StoreError: the store does not answer.
        """
        file = cls(url)
        with as_audio_error(file):
            return cls.of(url, patiently(lambda: file._filesystem().info(file._path()), file))

    def __str__(self) -> str:
        return without_query(self.url)

    @property
    def name(self) -> str:
        return posixpath.basename(str(self))

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    def read(self, start: int | None = None, stop: int | None = None) -> bytes:
        """Read the file, or its bytes from `start` to `stop`.

        Raises:
            OSError: the file does not exist.
            StoreError: the store does not answer, or does not support ranges.
        """
        data = patiently(lambda: self._filesystem().cat_file(self._path(), start, stop), self)
        if stop is not None and len(data) != stop - (start or 0):
            raise StoreError(
                f"{self}: asked for {stop - (start or 0)} bytes, got {len(data)}: the file has "
                "changed, or its server does not support ranges; download it and give its path"
            )
        return bytes(data)

    def download(self, path: Path) -> None:
        """Copy the file to a local path; raises the errors of `read`."""
        patiently(lambda: self._filesystem().get_file(self._path(), str(path)), self)

    def open(self) -> RangeReader:
        """Open the file for reading in parts, one request each; raises the errors of `read`."""
        size = self.size
        if size is None:
            size = patiently(lambda: self._filesystem().size(self._path()), self)
        if size is None:
            raise StoreError(
                f"{self}: its server does not report its size; download it and give its path"
            )
        return RangeReader(self, size)

    def _filesystem(self) -> Any:
        return find_filesystem(self.url)[0]

    def _path(self) -> str:
        return str(find_filesystem(self.url)[1])


class RangeReader(io.RawIOBase):
    """A remote file that is fetched as it is read, without read-ahead."""

    def __init__(self, file: RemoteFile, size: int) -> None:
        self.file, self.size, self.position = file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self.size, self.position + size)
        if stop <= self.position:
            return b""
        data = self.file.read(self.position, stop)
        self.position = stop
        return data


def without_query(url: str) -> str:
    """Return a URL for messages, without an HTTP query, because that may hold a signature."""
    if not url.startswith(("http://", "https://")):
        return url
    return urlsplit(url)._replace(query="", fragment="").geturl()


def read_audio_file(file: RemoteFile) -> bytes:
    """Read a whole file.

    Raises:
        AudioError: the file does not exist or is larger than `LARGEST_BYTES`.
        StoreError: the store does not answer.
    """
    with as_audio_error(file):
        return file.read()


@contextmanager
def as_audio_error(file: RemoteFile) -> Iterator[None]:
    """Raise the errors of one file as `AudioError`, also if the file is too large."""
    if file.size is not None and file.size > LARGEST_BYTES:
        limit = f"the limit is {LARGEST_BYTES >> 30} GB"
        raise AudioError(str(file), f"{file.size / 2**30:.0f} GB: {limit}; split it first")
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise AudioError(
            str(file), f"cannot be fetched ({error or type(error).__name__})"
        ) from error
