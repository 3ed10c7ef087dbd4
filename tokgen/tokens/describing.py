"""Describe token and latent datasets: `describe_dataset`.

    print(describe_dataset("tokens"))        # a folder, a URL, or an id on the Hugging Face hub

Only lengths, texts and speakers are read, so a dataset on the hub is not downloaded. `load_tokens`
checks the rows too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from tokgen.codec.continuous import LATENT_BITS
from tokgen.hub import ANSWER_SECONDS, why_unavailable
from tokgen.storage import Storage, find_filesystem, is_url
from tokgen.tokens.facts import DatasetFacts, SplitFacts
from tokgen.tokens.provenance import (
    LARGEST,
    METADATA_KEY,
    PROVENANCE,
    Provenance,
    provenance_of,
)
from tokgen.tokens.rates import DepthTotals, depths_in
from tokgen.tokens.saved import (
    REJECTIONS,
    check_inside,
    iter_columns,
    open_arrow,
    shards_in,
    split_of_file,
)
from tokgen.zoo.names import is_hub_id

__all__ = ["describe_dataset"]

_COLUMNS = ("n_samples", "text", "speaker")


def describe_dataset(
    source: str | Path, *, revision: str | None = None, follow_links: bool = False
) -> DatasetFacts:
    """Read what a token or latent dataset tells about itself. No codec is loaded.

    Lengths, texts and speakers are read, and of a variable bitrate on this machine the levels of
    each frame.

    Args:
        source, revision, follow_links: as for `load_tokens`.
    Raises:
        FileNotFoundError: there is no such folder, nor such a dataset on the hub.
        ValueError: it is no token or latent dataset, or not a finished one, or a file is damaged.
    """
    label, path = str(source), None if is_url(source) else Path(source)
    if path is not None and path.is_file():
        found = _Files(label, Storage(path.parent), {split_of_file(path.stem): [label]})
    elif path is None or path.is_dir():
        if revision is not None:
            raise ValueError(f"revision {revision!r}: only hub ids have revisions, not {label}")
        storage = Storage(source)
        if path is not None and (path / "dataset_dict.json").is_file():
            return _describe_arrow(label, storage, path, follow_links)
        files = shards_in(storage)
        if path is not None and not follow_links:
            check_inside(path, [Path(name) for names in files.values() for name in names])
        found = _Files(label, storage, files)
    elif is_hub_id(label):
        found = _Files(label, storage := _on_hub(label, revision), shards_in(storage))
    else:
        raise FileNotFoundError(f"no dataset {label}: make one with `tokgen tokenize`")
    return _describe_parquet(found)


@dataclass(frozen=True)
class _Files:
    """The Parquet files of a dataset.

    Attributes:
        source: name for messages.
        storage: folder with provenance.json.
        files: locations by split.
    """

    source: str
    storage: Storage
    files: dict[str, list[str]]


def _on_hub(name: str, revision: str | None) -> Storage:
    """Return the folder of a hub dataset, after one request that tells whether it is there."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(name, revision=revision, timeout=ANSWER_SECONDS)
    except Exception as error:  # of several libraries
        reason = why_unavailable(error, name, kind="dataset", revision=revision)
        raise FileNotFoundError(f"{name} is no folder, and {reason}") from error
    at = "" if revision is None else f"@{quote(revision, safe='')}"
    return Storage(f"hf://datasets/{name}{at}")


def _describe_parquet(found: _Files) -> DatasetFacts:
    if not found.files:
        raise ValueError(
            f"{found.source} is not a finished dataset: it has neither dataset_dict.json nor "
            "Parquet files, in it or in data/"
        )
    locations = [name for names in found.files.values() for name in names]
    schema = next(iter_columns(locations[0], ())).schema
    if "n_samples" not in schema.names:
        raise ValueError(f"{found.source} has no column 'n_samples', so it is no token dataset")
    provenance = _provenance_of(schema, found)
    splits = []
    for split, names in found.files.items():
        facts = SplitFacts(split)
        for name in names:
            for rows in iter_columns(name, _COLUMNS):
                facts.add(rows, provenance, name)
        splits.append(facts)
    packed = "codes" in schema.names and pa.types.is_binary(schema.field("codes").type)
    depths = depths_in(found.storage, provenance) if _is_tokgens(found) else None
    return _facts(found.source, found.storage, provenance, splits, locations, depths, packed=packed)


def _is_tokgens(found: _Files) -> bool:
    """Return whether all files lie in data/ of a folder on this machine."""
    path = found.storage.path
    return path is not None and all(
        Path(name).parent == path / "data" for names in found.files.values() for name in names
    )


def _provenance_of(schema: pa.Schema, found: _Files) -> Provenance:
    """Return the provenance in the metadata of a Parquet file, or of the file beside it."""
    from datasets import Dataset

    text = (schema.metadata or {}).get(METADATA_KEY)
    if text is None:
        try:
            return provenance_of(Dataset(schema.empty_table()), found.source)
        except ValueError:
            if found.storage.exists(PROVENANCE):
                with found.storage.open(PROVENANCE) as file:
                    text = file.read(LARGEST + 1)
    return Provenance.from_json(text or b"", found.source)


def _describe_arrow(label: str, storage: Storage, path: Path, follow_links: bool) -> DatasetFacts:
    opened = open_arrow(path, follow_links=follow_links)
    provenance, splits = provenance_of(opened, label), []
    for split, rows in opened.items():
        facts = SplitFacts(str(split))
        names = [name for name in _COLUMNS if name in rows.column_names]
        if "n_samples" not in names:
            raise ValueError(f"{label} has no column 'n_samples', so it is no token dataset")
        facts.add(rows.data.table.select(names), provenance, f"{label}, split {split!r}")
        splits.append(facts)
    depths = depths_in(storage, provenance)
    files = [str(file) for file in path.glob("*/*.arrow")]
    return _facts(label, storage, provenance, splits, files, depths, format="arrow")


def _facts(
    source: str,
    storage: Storage,
    provenance: Provenance,
    splits: list[SplitFacts],
    files: list[str],
    depths: Iterable[np.ndarray] | None,
    *,
    format: str = "parquet",
    packed: bool = False,
) -> DatasetFacts:
    kbps, mean_depth = None, None
    n_frames = sum(split.n_frames for split in splits)
    if provenance.rate is None:
        kbps = _plain_kbps(provenance)
    elif depths is not None and n_frames:
        totals = DepthTotals.of(depths, provenance.spec)
        kbps, mean_depth = totals.kbps(provenance.spec), totals.mean_depth
    n_rejected = None
    if storage.exists(REJECTIONS):
        n_rejected = len(storage.read(REJECTIONS).splitlines())
    return DatasetFacts(
        source,
        provenance,
        splits,
        n_files=len(files),
        n_bytes=sum(_sizes_of(files)),
        format=format,
        packed=packed,
        kbps=kbps,
        mean_depth=mean_depth,
        n_rejected=n_rejected,
    )


def _plain_kbps(provenance: Provenance) -> float:
    """Return the bitrate of frames that all have the same number of values."""
    if provenance.latent_dim:
        bits = float(provenance.latent_dim * LATENT_BITS)
    else:
        bits = float(np.log2(provenance.spec.sizes[: provenance.n_codebooks]).sum())
    return bits * provenance.codec_spec.frame_rate / 1000


def _sizes_of(files: Iterable[str]) -> Iterator[int]:
    for name in files:
        if is_url(name):
            filesystem, path = find_filesystem(name)
            yield filesystem.size(path) or 0
        else:
            yield Path(name).stat().st_size
