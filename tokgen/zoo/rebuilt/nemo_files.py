"""Read the .nemo files of NeMo's audio codecs: a tar of settings in YAML and weights of torch.

Nothing is unpacked to the disk, and no name inside the tar is used as a path.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from torch import Tensor

from tokgen.nn.files import brief, shorten
from tokgen.nn.torch_files import open_checkpoint, tensors_of
from tokgen.zoo.rebuilt.loading import parse_yaml

__all__ = ["SETTINGS", "find_nemo", "read_nemo_settings", "read_nemo_weights"]

SETTINGS = "model_config.yaml"
_WEIGHTS = "model_weights.ckpt"
_MAX_MEMBERS = 1000


def find_nemo(folder: Path) -> Path:
    """Return the .nemo file of a folder.

    Raises:
        ValueError: there are several.
    """
    found = sorted(path for path in folder.glob("*.nemo") if path.is_file())
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds several codecs ({names}): put each in its own folder")
    return found[0]


def read_nemo_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a .nemo file.

    Raises:
        ValueError: not a .nemo file, damaged, or too large.
    """
    with _member(path, SETTINGS) as (file, size):
        return parse_yaml(file, size, f"{path}: {SETTINGS}")


def read_nemo_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of a .nemo file.

    Raises:
        ValueError: not a .nemo file, damaged, or of other things than tensors.
    """
    name = f"{path}: {_WEIGHTS}"
    with _member(path, _WEIGHTS) as (file, _):
        return tensors_of(open_checkpoint(file, name), name)


@contextmanager
def _member(path: Path, wanted: str) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file inside a .nemo file, and yield it with its size in bytes."""
    try:
        archive = tarfile.open(path, "r:")  # noqa: SIM115 - closed below
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a .nemo file, which is a tar without compression: {brief(error)}; "
            "download it again, or decompress it if it is a .tar.gz"
        ) from error
    with archive:
        for count, member in enumerate(_members(archive, path)):
            if count >= _MAX_MEMBERS:
                raise ValueError(f"{path} holds more than {_MAX_MEMBERS} files")
            if PurePosixPath(member.name).name == wanted:
                if not member.isreg() or member.issparse():
                    raise ValueError(f"{path}: {shorten(member.name)} is not a regular file")
                file = archive.extractfile(member)
                assert file is not None  # of a regular file
                yield file, member.size
                return
    raise ValueError(f"{path} holds no {wanted}: it is not a model of NeMo")


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar one by one."""
    try:
        yield from archive
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {brief(error)}; download it again") from error
