"""Folders on this machine or on object storage, named by a path or any fsspec URL.

    out = Storage("s3://bucket/tokens")  # or a path, gs://, hf://, memory:// ...
    out.write("shards/00000.parquet", data)
    out.names("shards/")

Each store's driver finds its credentials itself: in the environment, in its own files or in
fsspec's settings. Never put credentials in a URL, because URLs are written to files.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import fsspec
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from tokgen.disk import disk_errors, flush

__all__ = [
    "PAUSES",
    "Storage",
    "StoreError",
    "find_filesystem",
    "is_url",
    "local_path",
    "patiently",
    "write_file",
]

PAUSES = (1.0, 5.0, 20.0)  # seconds before the second, third and fourth attempt
_FINAL = (FileNotFoundError, IsADirectoryError, NotImplementedError, ImportError)
_PARTIAL = ".partial"  # suffix of a local file while it is being written

T = TypeVar("T")


def is_url(location: str | Path) -> bool:
    """Return whether a location is a URL with a protocol, such as "s3://bucket/folder"."""
    return isinstance(location, str) and "://" in location


def local_path(location: str | Path) -> Path | None:
    """Return the path of a local location (a path or a file:// URL), None for other URLs."""
    if not is_url(location):
        return Path(location)
    if str(location).startswith(("file://", "local://")):
        return Path(find_filesystem(str(location))[1])
    return None


def find_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it.

    This is cheap, because fsspec caches file systems per process and thread. Keep the URL rather
    than the file system, and call this again after a fork.

    Raises:
        ValueError: the protocol is unknown.
        ModuleNotFoundError: the protocol's driver is not installed.
    """
    try:
        return fsspec.url_to_fs(url)
    except ImportError as error:
        protocol = url.partition("://")[0]
        raise ModuleNotFoundError(
            f"{protocol}:// needs a package that is not installed: {error}", name=error.name
        ) from error
    except ValueError as error:
        if "rotocol" not in str(error):
            raise
        raise ValueError(
            f"{url}: unknown protocol; use file, s3, gs, hf, https, memory or another one that "
            f"fsspec lists ({error})"
        ) from error


class StoreError(ConnectionError):
    """A store does not answer or denies access. The run stops and can be resumed later."""


def patiently(call: Callable[[], T], what: object) -> T:
    """Call a function, and retry after `PAUSES` if the connection fails.

    Drivers raise many types of errors for a failed connection. So every error is retried, except
    those that say that the file cannot be had.

    Args:
        call: the request to a store.
        what: the file or URL, for error messages.
    Raises:
        FileNotFoundError, IsADirectoryError, NotImplementedError, ImportError: raised by `call`,
            without a retry.
        StoreError: access is denied, or the last attempt failed.
    """

    def is_retried(error: BaseException) -> bool:
        return isinstance(error, Exception) and not isinstance(error, (*_FINAL, PermissionError))

    attempts = Retrying(
        retry=retry_if_exception(is_retried),
        wait=wait_chain(*map(wait_fixed, PAUSES)),
        stop=stop_after_attempt(len(PAUSES) + 1),
        reraise=True,
    )
    try:
        return attempts(call)
    except _FINAL:
        raise
    except PermissionError as error:  # usually an expired token, which affects every file
        raise StoreError(
            f"{what}: the store denies access ({error}); check the credentials and start the "
            "same run again to resume it"
        ) from error
    except Exception as error:
        raise StoreError(
            f"{what}: the store does not answer ({type(error).__name__}: {error}); start the "
            "same run again later to resume it"
        ) from error


class Storage:
    """A folder whose files are written completely or not at all.

    A `Storage` holds no connection, so it can be pickled.

    Args:
        url: path or fsspec URL of a folder. The folder is created by the first write.
    Attributes:
        url: absolute path of a local folder, otherwise the URL.
        path: path of a local folder, otherwise None.
    Raises:
        ValueError: the protocol is unknown.
        ModuleNotFoundError: the protocol's driver is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        path = local_path(url)
        self.path: Path | None = None
        if path is None:
            find_filesystem(str(url))
            self.url = str(url).rstrip("/")
        else:
            self.path = path.absolute()
            self.url = str(self.path)

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    @property
    def is_local(self) -> bool:
        return self.path is not None

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names of all files at any depth that start with `prefix`.

        A name is the path inside the folder, with slashes.
        """
        if self.path is not None:
            found = [
                Path(folder, name).relative_to(self.path).as_posix()
                for folder, _, names in os.walk(self.path / prefix.rpartition("/")[0])
                for name in names
                if not name.endswith(_PARTIAL)
            ]
        else:
            found = [path[len(self._root()) + 1 :] for path in self._find(prefix)]
        return sorted(name for name in found if name.startswith(prefix))

    def exists(self, name: str | None = None) -> bool:
        """Return whether the file `name` exists, or without a name, whether any file does."""
        if name is None:
            return bool(self.names())
        return self._local(name).is_file() if self.path else self._remote().isfile(self._full(name))

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: the file does not exist.
            StoreError: the store does not answer.
        """
        if self.path:
            return self._local(name).read_bytes()
        full = self._full(name)
        data: Any = patiently(lambda: self._remote().cat_file(full), f"{self.url}/{name}")
        return data

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading. A remote file is fetched in parts as it is read.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        if self.path is not None:
            return self._local(name).open("rb")
        return self._remote().open(self._full(name), "rb")

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file, completely or not at all.

        A local write returns when the data is on the disk. A remote write is one put: object
        stores show the file when it is complete, but on mounted or SSH stores readers may see
        an incomplete file.

        Raises:
            OSError: the disk is full; the message names the path.
            ValueError: the store is read-only.
            StoreError: the store does not answer.
        """
        if self.path is not None:
            write_file(self._local(name), data)
            return
        filesystem, full = self._remote(), self._full(name)
        try:
            try:
                patiently(lambda: filesystem.pipe_file(full, data), f"{self.url}/{name}")
            except FileNotFoundError:  # the store has real folders
                filesystem.makedirs(full.rpartition("/")[0], exist_ok=True)
                filesystem.pipe_file(full, data)
        except NotImplementedError as error:
            raise ValueError(f"{self.url} cannot be written to: give another store") from error

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        if self.path is not None:
            self._local(name).unlink(missing_ok=True)
        elif self.exists(name):
            self._remote().rm_file(self._full(name))

    def _local(self, name: str) -> Path:
        _check(name)
        assert self.path is not None
        return self.path / name

    def _remote(self) -> fsspec.AbstractFileSystem:
        return find_filesystem(self.url)[0]

    def _root(self) -> str:
        return str(find_filesystem(self.url)[1]).rstrip("/")

    def _full(self, name: str) -> str:
        _check(name)
        return f"{self._root()}/{name}"

    def _find(self, prefix: str) -> list[str]:
        filesystem = self._remote()
        filesystem.invalidate_cache()  # other processes may have written files
        inside = self._root() + "/"
        folder = (inside + prefix).rpartition("/")[0]
        found = patiently(lambda: filesystem.find(folder), self.url)
        return [path for path in found if path.startswith(inside)]


def _check(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(
            f"{name!r} is not a path inside the folder: use a relative path such as a/b, without .."
        )


def write_file(path: Path, data: bytes) -> None:
    """Write or replace a local file, completely or not at all. Missing folders are created.

    Raises:
        OSError: the disk is full; the message names the path.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{uuid.uuid4().hex}{_PARTIAL}")
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        flush(path.parent)
