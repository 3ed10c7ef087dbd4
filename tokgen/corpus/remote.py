"""Files behind a URL: read by ranges or whole, patiently, and told apart without reading.

A store that does not answer is asked again, and then stops the run with a `StoreError`; a file
that is gone or forbidden is an error of that file alone.
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

LARGEST_BYTES = 32 << 30  # more than 24 hours of 48 kHz stereo
# What stores call the checksum and the time of the last change of a file, best first.
_CHECKSUMS = (
    *("sha256", "xet_hash", "blob_id", "md5Hash", "md5", "content_md5", "Content-MD5", "crc32c"),
    *("checksum", "ETag", "etag", "Digest"),
)
_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified")


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL. Picklable: it holds no connection.

    Attributes:
        url: of the file.
        size: bytes, None where the store does not say.
        stamp: size and checksum, or time of the last change; None where neither is known.
    """

    url: str
    size: int | None = None
    stamp: str | None = None

    @classmethod
    def of(cls, url: str, info: Mapping[str, Any]) -> RemoteFile:
        """From what the file system says of it."""
        size = info.get("size")
        found = next(
            (f"{k} {info[k]}" for k in (*_CHECKSUMS, *_TIMES, "created") if info.get(k)), None
        )
        return cls(url, size, None if found is None else f"{size} bytes, {found}")

    @classmethod
    def find(cls, url: str) -> RemoteFile:
        """With what its store says of it.

        Raises:
            AudioError: there is none.
            StoreError: the store does not answer.
        """
        file = cls(url)
        with of_one_file(file):
            return cls.of(url, patiently(lambda: file._filesystem().info(file._path()), file))

    def __str__(self) -> str:
        """URL without its query, which may hold a signature."""
        return without_query(self.url)

    @property
    def name(self) -> str:
        return posixpath.basename(str(self))

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    def read(self, start: int | None = None, stop: int | None = None) -> bytes:
        """Its bytes, or those from `start` to `stop`.

        Raises:
            OSError: gone or forbidden.
            StoreError: the store does not answer, or does not give parts of a file.
        """
        data = patiently(lambda: self._filesystem().cat_file(self._path(), start, stop), self)
        if stop is not None and len(data) != stop - (start or 0):
            raise StoreError(
                f"{self}: asked for {stop - (start or 0)} bytes, got {len(data)}: the file has "
                "changed, or its server does not give ranges; download it and give its path"
            )
        return bytes(data)

    def download(self, path: Path) -> None:
        """Copy it to this machine; errors as of `read`."""
        patiently(lambda: self._filesystem().get_file(self._path(), str(path)), self)

    def open(self) -> RangeReader:
        """For reading in parts, each one request; errors as of `read`."""
        size = self.size
        if size is None:
            size = patiently(lambda: self._filesystem().size(self._path()), self)
        if size is None:
            raise StoreError(f"{self}: its server does not tell its size; give a path instead")
        return RangeReader(self, size)

    def _filesystem(self) -> Any:
        return find_filesystem(self.url)[0]

    def _path(self) -> str:
        return str(find_filesystem(self.url)[1])


class RangeReader(io.RawIOBase):
    """A remote file that is fetched as it is read, without reading ahead."""

    def __init__(self, file: RemoteFile, size: int) -> None:
        self.file, self.size, self.position = file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readall(self) -> bytes:
        return self.read()

    def read(self, size: int | None = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self.size, self.position + size)
        if stop <= self.position:
            return b""
        data = self.file.read(self.position, stop)
        self.position = stop
        return data


def without_query(url: str) -> str:
    """A URL as it is shown: an HTTP URL's query may hold a signature."""
    if not url.startswith(("http://", "https://")):
        return url
    return urlsplit(url)._replace(query="", fragment="").geturl()


def read_audio_file(file: RemoteFile) -> bytes:
    """
    Raises:
        AudioError: gone, forbidden or larger than `LARGEST_BYTES`.
        StoreError: the store does not answer.
    """
    with of_one_file(file):
        return file.read()


@contextmanager
def of_one_file(file: RemoteFile) -> Iterator[None]:
    """Errors that are of this file alone, as `AudioError`."""
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
