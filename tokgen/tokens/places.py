"""Tell places of token and latent datasets from those of codecs, without reading them."""

from __future__ import annotations

from pathlib import Path

from tokgen.storage import is_url

__all__ = ["is_dataset_place"]

_MARKS = ("dataset_dict.json", "provenance.json", "state.json")
_PARQUET = (".parquet",)


def is_dataset_place(source: str | Path) -> bool:
    """Return whether a name is that of a dataset: a URL, a Parquet file, or a folder of one.

    A folder counts if it has files of a dataset and no config.json, which codecs have. Hub ids do
    not count, because they name models too.
    """
    if is_url(source):
        return True
    path = Path(source)
    if path.suffix.lower() in _PARQUET and not path.is_dir():
        return True
    if not path.is_dir() or (path / "config.json").exists():
        return False
    if any((path / name).is_file() for name in _MARKS):
        return True
    return any(any(folder.glob("*.parquet")) for folder in (path, path / "data"))
