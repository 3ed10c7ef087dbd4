"""Datasets of the Hugging Face hub as corpora, downloaded or streamed."""

from __future__ import annotations

from pathlib import Path

from tokgen.corpus.entries import AudioStore, Catalogue
from tokgen.corpus.settings import check_corpus
from tokgen.corpus.streams import StreamCorpus, stream_part
from tokgen.corpus.tables import by_split, list_dataset
from tokgen.hub import cache_only, why_unavailable
from tokgen.runs.progress import quiet_logs

__all__ = ["list_hub", "stream_hub"]


def list_hub(name: str, catalogue: Catalogue) -> AudioStore:
    """Download a dataset and list it.

    Args:
        name: "owner/name" or "owner/name:config".
        catalogue: receives the entries.
    Raises:
        FileNotFoundError: the hub has no such dataset or cannot be reached.
        ValueError: the dataset has no audio column.
    """
    repository, config = _parse(name)
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        with quiet_logs(), cache_only(repository):
            found = datasets.load_dataset(repository, config)
    except OSError as error:
        raise _not_found(name, error) from error
    roots = [Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE)]
    return list_dataset(by_split(found), name, roots, catalogue)


def stream_hub(name: str, *, require_text: bool = False) -> StreamCorpus:
    """Open a dataset without a download; takes the names and raises the errors of `list_hub`."""
    repository, config = _parse(name)
    import datasets

    try:
        with cache_only(repository):
            builder = datasets.load_dataset_builder(repository, config)
            streams = by_split(builder.as_streaming_dataset())
    except OSError as error:
        raise _not_found(name, error) from error
    files = {str(split): list(urls) for split, urls in (builder.config.data_files or {}).items()}
    parts = [
        stream_part(split, data, files.get(split), files.get(split, ()))
        for split, data in streams.items()
    ]
    return StreamCorpus(name, parts, require_text=require_text)


def _parse(name: str) -> tuple[str, str | None]:
    """Return the repository and the config."""
    check_corpus(name)
    repository, _, config = name.partition(":")
    return repository, config or None


def _not_found(name: str, error: OSError) -> FileNotFoundError:
    reason = why_unavailable(error, name.partition(":")[0], kind="dataset")
    return FileNotFoundError(f"{name} is no folder or file, and {reason}")
