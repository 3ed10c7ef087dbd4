"""Token datasets: open one, join several, and push one to the Hugging Face hub.

A token dataset is a `datasets.DatasetDict` with one row per utterance: id, codes [T, K] uint16,
n_samples, text, speaker and optionally a conditioning, mfcc [T, 30] or log_mel [T, 80] float16.
If the codec decodes with side information, each kind has a column, such as `side_scales` [S]
float32. The features carry the `Provenance`, so every slice knows which codec made it.

    tokens = load_tokens("tokens")           # a folder, a URL, or an id on the Hugging Face hub
    tokens.splits["train"][0]["codes"]       # [T, K]
    tokens.codes("train", 0)                 # [1, K, T], as `Codec.encode` returns them
    tokens.decode(codec, "train", 0)         # [1, 1, N]

`datasets.load_dataset` opens the same places; `provenance_of` then returns the provenance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.hub import why_unavailable
from tokgen.runs.progress import quiet_libraries
from tokgen.storage import Storage
from tokgen.tokens.card import push_card
from tokgen.tokens.columns import codes_of, sides_of
from tokgen.tokens.provenance import (
    LARGEST,
    METADATA_KEY,
    PROVENANCE,
    Provenance,
    attach_provenance,
    carries_provenance,
    provenance_of,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

__all__ = [
    "PLAN",
    "REJECTIONS",
    "TokenDataset",
    "check_codec",
    "concatenate_tokens",
    "lengths_in",
    "load_tokens",
    "read_shard",
]

REJECTIONS, PLAN = "rejections.jsonl", "plan.json"
_SHARD = re.compile(r"data/(?P<split>\w+(\.\w+)*)-(\d{9}|\d{5,}-of-\d{5,})\.parquet")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, repr=False)
class TokenDataset:
    """An open token dataset.

    Attributes:
        splits: rows by split, such as `splits["train"][0]["codes"]` [T, K].
        provenance: codec, corpus and settings behind the rows.
        source: folder, URL or hub id that it was loaded from; None for one made in memory.
    """

    splits: DatasetDict
    provenance: Provenance
    source: str | None = None

    def __repr__(self) -> str:
        rows = ", ".join(f"{len(part)} {split}" for split, part in self.splits.items())
        about = self.provenance
        return (
            f"TokenDataset({rows}; codec {about.spec.name}, {about.n_codebooks} x "
            f"{about.codebook_size}, {about.spec.frame_rate:g} frames/s)"
        )

    def codes(self, split: str, index: int) -> Tensor:
        """Return codes int64 [1, K, T] of one row, as `Codec.encode` returns them.

        Raises:
            ValueError: there is no such split.
        """
        return codes_of(self._row(split, index))[0][None]

    def decode(self, codec: Codec, split: str, index: int) -> Tensor:
        """Return the waveform [1, 1, N] of one row.

        Raises:
            ValueError: another codec made the tokens, or there is no such split.
        """
        check_codec(self.provenance, codec.spec)
        row = self._row(split, index)
        sides = sides_of(row, codec.side_names)
        return codec.decode_batch(codes_of(row), list(row["n_samples"]), sides)[0][None]

    def _row(self, split: str, index: int) -> Dataset:
        if split not in self.splits:
            raise ValueError(f"no split {split!r}: the tokens have {', '.join(self.splits)}")
        return self.splits[split].select([index])

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

        `load_tokens(repo_id)` and `datasets.load_dataset(repo_id)` open the result. A card that
        somebody wrote on the hub keeps its text. See `datasets.DatasetDict.push_to_hub` for
        `private`, `revision`, `token` and `max_shard_size`.

        Args:
            repo_id: "owner/name"; is created if it does not exist.
            license: identifier of the hub, such as "cc-by-4.0". The default, "unknown", keeps a
                license that the card on the hub names.
        Returns:
            URL of the dataset.
        """
        splits = _attach(self.splits, self.provenance)
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


def load_tokens(
    source: str | Path | Dataset | DatasetDict,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> TokenDataset:
    """Open a token dataset in Arrow or Parquet format.

    Parquet is copied to the cache of `datasets` and memory-mapped from there.

    Args:
        source: folder or fsspec URL that `tokenize_corpus` wrote, a Parquet file or a folder of
            them that `datasets` wrote, or the id "owner/name" of a dataset on the Hugging Face hub.
            A folder in the current directory is preferred. Rows that are open are kept as they are.
        revision: branch, tag or commit of a hub dataset.
        token: access token of the hub; None uses HF_TOKEN or the saved one.
        cache_dir: folder for copies; None is the cache of `datasets`.
    Raises:
        FileNotFoundError: there is no such folder, nor such a dataset on the hub.
        ValueError: it is not a token dataset, or not a finished one.
    """
    from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

    if isinstance(source, Dataset):
        source = DatasetDict({str(source.split or "train"): source})
    if isinstance(source, DatasetDict):
        return TokenDataset(source, provenance_of(source))
    cache = None if cache_dir is None else str(cache_dir)
    storage = Storage(source)
    if storage.path is not None and storage.path.is_file() and storage.path.suffix == ".parquet":
        with quiet_libraries():
            splits = load_dataset("parquet", data_files=str(storage.path), cache_dir=cache)
        return TokenDataset(splits, provenance_of(splits), str(source))
    if storage.path is not None and not storage.path.is_dir():
        if isinstance(source, str) and _HUB_ID.fullmatch(source):
            return _load_from_hub(source, revision, token, cache)
        raise FileNotFoundError(f"no token dataset {source}: make one with `tokgen tokenize`")
    if revision is not None:
        raise ValueError(f"revision {revision!r}: only hub ids have revisions, not {source}")
    if storage.is_local and storage.exists("dataset_dict.json"):
        splits = load_from_disk(storage.url)
        if not isinstance(splits, DatasetDict):
            raise ValueError(f"{source} is one split of a dataset: give the folder above it")
    elif files := _shards_in(storage):
        with quiet_libraries():
            splits = load_dataset("parquet", data_files=files, cache_dir=cache)
    elif storage.path is not None and any(storage.path.glob("*.parquet")):
        with quiet_libraries():
            splits = load_dataset(str(storage.path), cache_dir=cache)
        return TokenDataset(splits, provenance_of(splits), str(source))
    else:
        raise ValueError(
            f"{source} is not a finished token dataset: it has neither dataset_dict.json nor "
            "Parquet files, in it or in data/"
        )
    return _with_provenance(splits, str(source), lambda: _provenance_in(storage))


def _load_from_hub(
    name: str, revision: str | None, token: str | None, cache: str | None
) -> TokenDataset:
    from datasets import load_dataset
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
        return _with_provenance(splits, name, read_provenance)
    except OSError as error:
        reason = why_unavailable(error, name, kind="dataset", revision=revision)
        raise FileNotFoundError(f"{name} is no folder, and {reason}") from error


def _shards_in(storage: Storage) -> dict[str, list[str]]:
    """Return the locations of a finished dataset's Parquet files by split, in order."""
    files: dict[str, list[str]] = {}
    if storage.exists(PROVENANCE) or not storage.exists(PLAN):
        for name in storage.names("data/"):
            if found := _SHARD.fullmatch(name):
                files.setdefault(found["split"], []).append(f"{storage.url}/{name}")
    return files


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


def _with_provenance(
    splits: DatasetDict, source: str, read_provenance: Callable[[], bytes | None]
) -> TokenDataset:
    """Return an opened dataset. An old one gets its provenance into its features.

    Args:
        read_provenance: returns JSON that is kept beside the rows, None if there is none.
    """
    if not carries_provenance(splits):
        if any(part.info.description for part in splits.values()):  # an old Arrow dataset
            found = provenance_of(splits)
        else:
            found = Provenance.from_json(read_provenance() or b"", source)
        splits = _attach(splits, found)
    return TokenDataset(splits, provenance_of(splits), source)


def _attach(splits: DatasetDict, provenance: Provenance) -> DatasetDict:
    from datasets import DatasetDict

    return DatasetDict(
        {split: attach_provenance(part, provenance) for split, part in splits.items()}
    )


def concatenate_tokens(datasets: Sequence[TokenDataset]) -> TokenDataset:
    """Join token datasets of one codec, such as those of several corpora, split by split.

    The provenance of the result names all corpora. (`datasets.concatenate_datasets` refuses rows
    whose provenance differs.)

    Raises:
        ValueError: they were made by different codecs or with different settings.
    """
    from datasets import DatasetDict, concatenate_datasets

    if not datasets:
        raise ValueError("no token datasets: give at least one")
    each = [dataset.provenance for dataset in datasets]
    for other in each[1:]:
        same = {name: getattr(each[0], name) for name in ("corpus_fingerprint", "tokgen_version")}
        check_codec(other, each[0].spec)
        if not replace(other, **same).makes_equal_rows(each[0]):
            raise ValueError(
                f"the tokens of {each[0].corpus!r} and {other.corpus!r} differ in levels, "
                "conditioning or precision: tokenize them with equal settings"
            )
    content = " ".join(provenance.corpus_fingerprint for provenance in each)
    joined = replace(
        each[0],
        corpus=" + ".join(provenance.corpus for provenance in each),
        corpus_fingerprint=sha256(content.encode()).hexdigest(),
    )
    parts: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        for split, part in _attach(dataset.splits, joined).items():
            parts.setdefault(str(split), []).append(part)
    splits = {split: concatenate_datasets(found) for split, found in parts.items()}
    return TokenDataset(DatasetDict(splits), joined)


def lengths_in(storage: Storage) -> Iterator[int]:
    """Yield the number of samples of every utterance, without reading codes."""
    if storage.exists("dataset_dict.json"):
        for part in load_tokens(storage.url).splits.values():
            yield from part.data["n_samples"].to_pylist()
        return
    for name in storage.names("data/"):
        yield from read_shard(storage, name, ["n_samples"])["n_samples"].to_pylist()


def read_shard(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns, without threads.

    pyarrow's read-ahead threads abort the process if they are still reading when it ends.
    """
    import pyarrow.parquet as pq

    with storage.open(name) as file, pq.ParquetFile(file, pre_buffer=False) as table:
        return table.read(columns, use_threads=False)


def check_codec(provenance: Provenance, spec: CodecSpec) -> None:
    """Raise ValueError if tokens were made by another codec; the message names both."""
    theirs = provenance.spec
    if theirs.weight_hash != spec.weight_hash:
        raise ValueError(
            f"the tokens were made by codec {theirs.name!r} (weights {theirs.weight_hash[:12]}), "
            f"not by {spec.name!r} (weights {spec.weight_hash[:12]}): tokenize again, or load "
            f"{theirs.name!r}"
        )
