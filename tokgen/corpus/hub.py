"""Datasets of the Hugging Face hub as a corpus: downloaded and listed, or streamed."""

from __future__ import annotations

import re
from pathlib import Path

from tokgen.corpus.entries import AudioStore, Catalogue
from tokgen.corpus.streams import StreamCorpus, stream_part
from tokgen.corpus.tables import by_split, list_dataset

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


def list_hub(where: str, catalogue: Catalogue) -> AudioStore:
    """Download a dataset, "owner/name" or "owner/name:config", and list it.

    Raises:
        FileNotFoundError: no hub dataset of that name in reach.
        ValueError: no audio column.
    """
    repository, config = _hub_id(where)
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        found = datasets.load_dataset(repository, config)
    except OSError as error:
        raise _no_such(where, error) from error
    roots = [Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE)]
    return list_dataset(by_split(found), where, roots, catalogue)


def stream_hub(where: str, *, require_text: bool = False) -> StreamCorpus:
    """A dataset of the hub without download; named and refused as by `list_hub`."""
    repository, config = _hub_id(where)
    import datasets

    try:
        builder = datasets.load_dataset_builder(repository, config)
        streams = by_split(builder.as_streaming_dataset())
    except OSError as error:
        raise _no_such(where, error) from error
    files = {str(split): list(names) for split, names in (builder.config.data_files or {}).items()}
    parts = [
        stream_part(split, data, files.get(split), files.get(split, ()))
        for split, data in streams.items()
    ]
    return StreamCorpus(where, parts, require_text=require_text)


def _hub_id(where: str) -> tuple[str, str | None]:
    """Repository and config."""
    if "/" not in where or not _HUB_ID.fullmatch(where) or where.startswith("."):
        raise FileNotFoundError(f"no folder or file {where} (a hub dataset is named owner/name)")
    repository, _, config = where.partition(":")
    return repository, config or None


def _no_such(where: str, error: OSError) -> FileNotFoundError:
    """Not found, or no connection."""
    return FileNotFoundError(
        f"{where}: no such folder or file, and no hub dataset of that name in reach ({error})"
    )
