"""Open token and latent datasets, and check their rows.

`tokgen.tokens.dataset` opens token datasets, `tokgen.tokens.latents` latent ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tokgen.codec.continuous import ContinuousSpec
from tokgen.codec.identity import encodes_like, show_hashes
from tokgen.codec.spec import CodecSpec
from tokgen.hub import why_unavailable
from tokgen.storage import Storage
from tokgen.tokens.card import push_card
from tokgen.tokens.checks import check_columns, check_rows
from tokgen.tokens.packed import is_packed, unpack_rows
from tokgen.tokens.provenance import (
    LARGEST,
    METADATA_KEY,
    PROVENANCE,
    Provenance,
    attach_provenance,
    describe_rate,
    has_provenance,
    provenance_of,
)
from tokgen.tokens.saved import (
    check_inside,
    one_line,
    open_arrow,
    open_parquet,
    shards_in,
    split_of_file,
)

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["CodedDataset", "Opened", "check_same_weights", "open_rows", "with_provenance"]

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class Opened(NamedTuple):
    """Rows by split, their provenance, and where they were loaded from."""

    splits: DatasetDict
    provenance: Provenance
    source: str | None


@dataclass(frozen=True, repr=False)
class CodedDataset:
    """An open dataset of rows that a codec encoded.

    Attributes:
        splits: rows by split.
        provenance: codec, corpus and settings behind the rows.
        source: folder, URL or hub id that it was loaded from; None for one made in memory.
    """

    splits: DatasetDict
    provenance: Provenance
    source: str | None = None

    def __repr__(self) -> str:
        rows = ", ".join(f"{len(part)} {split}" for split, part in self.splits.items())
        about, spec = self.provenance, self.provenance.codec_spec
        sizes = f"{about.n_codebooks} x {about.codebook_size}"
        sizes = f"{about.latent_dim} latents" if about.latent_dim else sizes
        rate = "" if about.rate is None else f", {describe_rate(about.rate)}"
        return (
            f"{type(self).__name__}({rows}; codec {spec.name}, {sizes}, "
            f"{spec.frame_rate:g} frames/s{rate})"
        )

    def _row(self, split: str, index: int) -> Dataset:
        return self._rows(split).select([index])

    def _rows(self, split: str) -> Dataset:
        if split not in self.splits:
            raise ValueError(
                f"no split {split!r}: the {self.provenance.content} have {', '.join(self.splits)}"
            )
        return self.splits[split]

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str = "unknown",
        private: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        max_shard_size: str | int | None = None,
    ) -> str:
        """Upload the rows and a dataset card to the Hugging Face hub.

        `load_tokens(repo_id)`, or `load_latents(repo_id)`, and `datasets.load_dataset(repo_id)`
        open the result. A card that somebody wrote on the hub keeps its text. See
        `datasets.DatasetDict.push_to_hub` for `private`, `revision`, `token` and
        `max_shard_size`.

        Args:
            repo_id: "owner/name"; is created if it does not exist.
            license: identifier of the hub, such as "cc-by-4.0". The default, "unknown", keeps a
                license that the card on the hub names.
        Returns:
            URL of the dataset.
        """
        splits = with_provenance(self.splits, self.provenance)
        splits.push_to_hub(
            repo_id,
            private=private,
            revision=revision,
            token=token,
            max_shard_size=max_shard_size,
        )
        return push_card(
            splits, self.provenance, repo_id, license=license, revision=revision, token=token
        )


def open_rows(
    source: str | Path | Dataset | DatasetDict | CodedDataset,
    column: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    follow_links: bool = False,
) -> Opened:
    """Open a dataset as `load_tokens` and `load_latents` do.

    Args:
        source: as for `load_tokens`, or an open dataset.
        column: "codes" or "latents".
        revision, token, cache_dir, follow_links: as for `load_tokens`.
    Raises:
        FileNotFoundError, ValueError: as for `load_tokens`; or a dataset of the other kind.
    """
    from datasets import Dataset, DatasetDict

    kind = "token" if column == "codes" else "latent"
    if isinstance(source, CodedDataset):
        source = source.splits
    if isinstance(source, Dataset):
        source = DatasetDict({str(source.split or "train"): source})
    if isinstance(source, DatasetDict):
        return _checked(column, source, "the dataset")._replace(source=None)
    cache = None if cache_dir is None else str(cache_dir)
    storage = Storage(source)
    path = storage.path
    in_hub = path is not None and not path.exists()
    if revision is not None and not in_hub:
        raise ValueError(f"revision {revision!r}: only hub ids have revisions, not {source}")
    if path is not None and path.suffix == ".parquet" and path.is_file():
        splits = open_parquet({split_of_file(path.stem): [str(path)]}, cache, str(source))
        return _checked(column, splits, str(source))
    if path is not None and not path.is_dir():
        if isinstance(source, str) and _HUB_ID.fullmatch(source):
            return _load_from_hub(column, source, revision, token, cache)
        raise FileNotFoundError(f"no {kind} dataset {source}: make one with `tokgen tokenize`")
    if path is not None and (path / "dataset_dict.json").is_file():
        splits = open_arrow(path, follow_links=follow_links)
    elif path is not None and all(
        (path / n).is_file() for n in ("state.json", "dataset_info.json")
    ):
        raise ValueError(f"{source} is one split of a dataset: give the folder above it")
    elif files := shards_in(storage):
        if path is not None and not follow_links:
            check_inside(path, map(Path, chain.from_iterable(files.values())))
        splits = open_parquet(files, cache, str(source))
    else:
        raise ValueError(
            f"{source} is not a finished {kind} dataset: it has neither dataset_dict.json nor "
            "Parquet files, in it or in data/"
        )
    if path is not None and not follow_links:
        check_inside(path, [path / PROVENANCE])
    opened = _checked(column, splits, str(source), lambda: _provenance_in(storage))
    _check_beside(storage, opened)
    return opened


def _load_from_hub(
    column: str, name: str, revision: str | None, token: str | None, cache: str | None
) -> Opened:
    from datasets import load_dataset
    from datasets.exceptions import DatasetBuildError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def read_provenance() -> bytes | None:
        try:
            path = hf_hub_download(
                name, PROVENANCE, repo_type="dataset", revision=revision, token=token
            )
        except EntryNotFoundError:
            return None
        with open(path, "rb") as file:
            return file.read(LARGEST + 1)

    try:
        splits = load_dataset(name, revision=revision, token=token, cache_dir=cache)
        return _checked(column, splits, name, read_provenance)
    except OSError as error:
        reason = why_unavailable(error, name, kind="dataset", revision=revision)
        raise FileNotFoundError(f"{name} is no folder, and {reason}") from error
    except DatasetBuildError as error:
        raise ValueError(f"{name} cannot be opened ({one_line(error)}): upload it again") from error


def _provenance_in(storage: Storage) -> bytes | None:
    """Return the JSON in the metadata of the first Parquet file, or in provenance.json."""
    import pyarrow.parquet as pq

    for name in storage.names("data/")[:1]:
        with storage.open(name) as file:
            text = (pq.read_schema(file).metadata or {}).get(METADATA_KEY)
        if text is not None:
            return text
    if storage.exists(PROVENANCE):
        with storage.open(PROVENANCE) as file:
            return file.read(LARGEST + 1)
    return None


def _checked(
    column: str,
    splits: DatasetDict,
    source: str,
    read_provenance: Callable[[], bytes | None] | None = None,
) -> Opened:
    """Return an opened dataset, after a check of its rows.

    Args:
        read_provenance: returns JSON that is kept beside the rows, None if there is none. An old
            dataset gets it into its features.
    """
    check_columns(splits, column, source)
    if read_provenance is not None and not all(map(has_provenance, splits.values())):
        if any(part.info.description for part in splits.values()):  # an old Arrow dataset
            found = provenance_of(splits)
        else:
            found = Provenance.from_json(read_provenance() or b"", source)
        splits = with_provenance(splits, found)
    provenance = provenance_of(splits, source)
    if column == "codes" and any(map(is_packed, splits.values())):
        splits = _unpacked(splits, provenance, source)
    check_rows(splits, provenance, source)
    return Opened(splits, provenance, source)


def _unpacked(splits: DatasetDict, provenance: Provenance, source: str) -> DatasetDict:
    """Return splits with their codes as [T, K]."""
    parts = {
        split: unpack_rows(part, provenance, f"{source}, split {split!r}")
        if is_packed(part)
        else part
        for split, part in splits.items()
    }
    return with_provenance(type(splits)(parts), provenance)


def _check_beside(storage: Storage, opened: Opened) -> None:
    """Raise ValueError if provenance.json contradicts the provenance of the rows."""
    if not storage.exists(PROVENANCE):
        return
    with storage.open(PROVENANCE) as file:
        beside = Provenance.from_json(file.read(LARGEST + 1), f"{storage.url}/{PROVENANCE}")
    if different := beside.differences(opened.provenance):
        raise ValueError(
            f"{storage.url}/{PROVENANCE} contradicts the rows beside it ({'; '.join(different)}): "
            "restore both from a copy, or make the dataset again with `tokgen tokenize`"
        )


def with_provenance(splits: DatasetDict, provenance: Provenance) -> DatasetDict:
    """Return splits whose features carry a provenance; no data is copied."""
    from datasets import DatasetDict

    return DatasetDict(
        {split: attach_provenance(part, provenance) for split, part in splits.items()}
    )


def check_same_weights(provenance: Provenance, spec: CodecSpec | ContinuousSpec) -> None:
    """Raise ValueError if another codec made the rows; the message names both.

    A codec of which only the decoder differs makes equal rows, and is accepted.
    """
    theirs = provenance.codec_spec
    if not encodes_like(theirs, spec):
        ours, other = show_hashes(theirs, spec)
        raise ValueError(
            f"the {provenance.content} were made by codec {theirs.name!r} ({ours}), not by "
            f"{spec.name!r} ({other}): tokenize again, or load {theirs.name!r}"
        )
