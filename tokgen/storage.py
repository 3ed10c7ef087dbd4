"""Folders on this machine or on object storage, by path or by any fsspec URL.

    out = Storage("s3://bucket/tokens")  # or a path, gs://, hf://, memory:// ...
    out.write("shards/00000.parquet", data)
    out.names("shards/")

Credentials come from where the driver of each store looks for them: the environment, its own
files, or fsspec's settings. None stand in a URL that is written down.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import fsspec

_PARTIAL = ".partial"  # suffix of a file that is being written on this machine


def is_url(where: str | Path) -> bool:
    """Whether this names a store by its protocol, as in "s3://bucket/folder"."""
    return isinstance(where, str) and "://" in where


def local_path(where: str | Path) -> Path | None:
    """The path that a path or a file:// URL names; None for other URLs."""
    if not is_url(where):
        return Path(where)
    if str(where).startswith(("file://", "local://")):
        return Path(find_filesystem(str(where))[1])
    return None


def find_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the path there.

    Cheap: fsspec keeps its file systems, one for each process and thread, so hold on to the URL
    and ask again after a fork.

    Raises:
        ValueError: no such protocol.
        ModuleNotFoundError: its driver is not installed.
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
            f"{url}: unknown protocol; known are file, s3, gs, hf, https, memory and all that "
            f"fsspec lists ({error})"
        ) from error


class Storage:
    """A folder of files, each written whole or not at all. Picklable: it holds no connection.

    Args:
        url: a path, or any fsspec URL of a folder. Nothing is made until the first write.
    Attributes:
        url: absolute path of a local folder, the URL of another.
        path: the local folder, None elsewhere.
    Raises:
        ValueError: no such protocol.
        ModuleNotFoundError: its driver is not installed.
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    def is_local(self) -> bool:
        return self.path is not None

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return self.url.rpartition("/")[2]

    def child(self, name: str) -> Storage:
        """The folder `name` inside this one."""
        _check(name)
        return Storage(f"{self.url}/{name}" if self.path is None else self.path / name)

    def names(self, prefix: str = "") -> list[str]:
        """Files at any depth whose path inside, with slashes, starts so; sorted."""
        if self.path is not None:
            found = [
                Path(folder, name).relative_to(self.path).as_posix()
                for folder, _, names in os.walk(self.path)
                for name in names
                if not name.endswith(_PARTIAL)
            ]
        else:
            found = [path[len(self._root()) + 1 :] for path in self._find(prefix)]
        return sorted(name for name in found if name.startswith(prefix))

    def exists(self, name: str | None = None) -> bool:
        """Whether there is a file `name`; without one, whether there is any file."""
        if name is None:
            return bool(self.names())
        return self._local(name).is_file() if self.path else self._remote().isfile(self._full(name))

    def read(self, name: str) -> bytes:
        """
        Raises:
            FileNotFoundError: there is none.
            StoreError: the store does not answer, here and below.
        """
        return self._local(name).read_bytes() if self.path else self._cat(name)

    def open(self, name: str) -> IO[bytes]:
        """A file for reading; from another machine it comes in parts, as they are asked for.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.path is not None:
            return self._local(name).open("rb")
        return self._remote().open(self._full(name), "rb")

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, over one that is there.

        On this machine it waits until the disk has it. Elsewhere it is one put, which object
        stores show when it is complete; on a mounted or SSH store, a reader may see half.

        Raises:
            ValueError: the store is for reading only.
        """
        if self.path is not None:
            _write_local(self._local(name), data)
            return
        filesystem, full = self._remote(), self._full(name)
        try:
            try:
                patiently(lambda: filesystem.pipe_file(full, data), f"{self.url}/{name}")
            except FileNotFoundError:  # a store that has real folders
                filesystem.makedirs(full.rpartition("/")[0], exist_ok=True)
                filesystem.pipe_file(full, data)
        except NotImplementedError as error:
            raise ValueError(f"{self.url} cannot be written to: give another store") from error

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.path is not None:
            self._local(name).unlink(missing_ok=True)
        elif self.exists(name):
            self._remote().rm_file(self._full(name))

    def delete_all(self) -> None:
        """Delete everything inside, half-written files too."""
        if self.path is not None:
            if self.path.is_dir():
                shutil.rmtree(self.path)
        elif found := self._find():
            self._remote().rm(found)

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

    def _cat(self, name: str) -> bytes:
        full = self._full(name)
        data: Any = patiently(lambda: self._remote().cat_file(full), f"{self.url}/{name}")
        return data

    def _find(self, prefix: str = "") -> list[str]:
        filesystem = self._remote()
        filesystem.invalidate_cache()  # others write there too
        inside = self._root() + "/"
        folder = (inside + prefix).rpartition("/")[0]
        found = patiently(lambda: filesystem.find(folder), self.url)
        return [path for path in found if path.startswith(inside)]


def _check(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no path inside the folder: use a/b, without .. or a root")


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PARTIAL}")  # of this writer alone
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


PAUSES = (1.0, 5.0, 20.0)  # seconds before asking again


_FINAL = (FileNotFoundError, IsADirectoryError, NotImplementedError, ImportError)


T = TypeVar("T")


class StoreError(ConnectionError):
    """A store does not answer: the run stops, and can go on when it does."""


def patiently(call: Callable[[], T], what: object) -> T:
    """Call, and again after pauses where a connection failed.

    Drivers raise what their HTTP libraries do, so anything counts but what says that the file
    cannot be had.

    Raises:
        OSError: gone.
        StoreError: no answer in the end, or access denied.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except _FINAL:
            raise
        except PermissionError as error:  # a token that has expired, mostly: no file's fault
            raise StoreError(
                f"{what}: the store refuses ({error}); see to the credentials and start the same "
                "run again: it goes on where it stopped"
            ) from error
        except Exception as error:
            if pause is None:
                raise StoreError(
                    f"{what}: the store does not answer ({type(error).__name__}: {error}); "
                    "start the same run again when it does: it goes on where it stopped"
                ) from error
            time.sleep(pause)
    raise AssertionError("unreachable")
