"""Token datasets: open one, join several, and push one to the Hugging Face hub.

A token dataset is a `datasets.DatasetDict` with one row per utterance: id, codes [T, K] uint16,
n_samples, text, speaker and optionally a conditioning, mfcc [T, 30] or log_mel [T, 80] float16.
If the codec decodes with side information, each kind has a column, such as `side_scales` [S]
float32. With a variable bitrate, each frame has a list of as many codes as it has levels
(`tokgen.tokens.columns.depths_of`). The features carry the `Provenance`, so every slice knows which
codec made it.

    tokens = load_tokens("tokens")           # a folder, a URL, or an id on the Hugging Face hub
    tokens.splits["train"][0]["codes"]       # [T, K]
    tokens.codes("train", 0)                 # [1, K, T], as `Codec.encode` returns them
    tokens.decode(codec, "train", 0)         # [1, 1, N]

`datasets.load_dataset` opens the same places; `provenance_of` then returns the provenance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.hub import why_unavailable
from tokgen.storage import Storage
from tokgen.tokens.card import push_card
from tokgen.tokens.checks import check_columns, check_rows
from tokgen.tokens.columns import codes_of, sides_of
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

__all__ = [
    "TokenDataset",
    "check_codec",
    "concatenate_tokens",
    "load_tokens",
]

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
        rate = "" if about.rate is None else f", {describe_rate(about.rate)}"
        return (
            f"TokenDataset({rows}; codec {about.spec.name}, {about.n_codebooks} x "
            f"{about.codebook_size}, {about.spec.frame_rate:g} frames/s{rate})"
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
    follow_links: bool = False,
) -> TokenDataset:
    """Open a token dataset in Arrow or Parquet format.

    Parquet is copied to the cache of `datasets` and memory-mapped from there. All rows are checked
    against the provenance, at the speed at which the disk reads them.

    Args:
        source: folder or fsspec URL that `tokenize_corpus` wrote, a Parquet file or a folder of
            them that `datasets` wrote, or the id "owner/name" of a dataset on the Hugging Face hub.
            A folder in the current directory is preferred. Rows that are open are kept as they are.
        revision: branch, tag or commit of a hub dataset.
        token: access token of the hub; None uses HF_TOKEN or the saved one.
        cache_dir: folder for copies; None is the cache of `datasets`.
        follow_links: open files that lie outside the folder, by a link or by their name.
    Raises:
        FileNotFoundError: there is no such folder, nor such a dataset on the hub.
        ValueError: it is not a token dataset, or not a finished one; a file is damaged or lies
            outside the folder; or rows contradict the provenance (see `check_rows`).
    """
    from datasets import Dataset, DatasetDict

    if isinstance(source, Dataset):
        source = DatasetDict({str(source.split or "train"): source})
    if isinstance(source, DatasetDict):
        return replace(_checked(source, "the dataset"), source=None)
    cache = None if cache_dir is None else str(cache_dir)
    storage = Storage(source)
    path = storage.path
    if path is not None and path.suffix == ".parquet" and path.is_file():
        splits = open_parquet({split_of_file(path.stem): [str(path)]}, cache, str(source))
        return _checked(splits, str(source))
    if path is not None and not path.is_dir():
        if isinstance(source, str) and _HUB_ID.fullmatch(source):
            return _load_from_hub(source, revision, token, cache)
        raise FileNotFoundError(f"no token dataset {source}: make one with `tokgen tokenize`")
    if revision is not None:
        raise ValueError(f"revision {revision!r}: only hub ids have revisions, not {source}")
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
            f"{source} is not a finished token dataset: it has neither dataset_dict.json nor "
            "Parquet files, in it or in data/"
        )
    if path is not None and not follow_links:
        check_inside(path, [path / PROVENANCE])
    tokens = _checked(splits, str(source), lambda: _provenance_in(storage))
    _check_beside(storage, tokens)
    return tokens


def _load_from_hub(
    name: str, revision: str | None, token: str | None, cache: str | None
) -> TokenDataset:
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
        return _checked(splits, name, read_provenance)
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
    splits: DatasetDict, source: str, read_provenance: Callable[[], bytes | None] | None = None
) -> TokenDataset:
    """Return an opened dataset, after a check of its rows.

    Args:
        read_provenance: returns JSON that is kept beside the rows, None if there is none. An old
            dataset gets it into its features.
    """
    check_columns(splits, source)
    if read_provenance is not None and not all(map(has_provenance, splits.values())):
        if any(part.info.description for part in splits.values()):  # an old Arrow dataset
            found = provenance_of(splits)
        else:
            found = Provenance.from_json(read_provenance() or b"", source)
        splits = _attach(splits, found)
    provenance = provenance_of(splits, source)
    if any(map(is_packed, splits.values())):
        splits = _unpacked(splits, provenance, source)
    check_rows(splits, provenance, source)
    return TokenDataset(splits, provenance, source)


def _unpacked(splits: DatasetDict, provenance: Provenance, source: str) -> DatasetDict:
    """Return splits with their codes as [T, K]."""
    parts = {
        split: unpack_rows(part, provenance, f"{source}, split {split!r}")
        if is_packed(part)
        else part
        for split, part in splits.items()
    }
    return _attach(type(splits)(parts), provenance)


def _check_beside(storage: Storage, tokens: TokenDataset) -> None:
    """Raise ValueError if provenance.json contradicts the provenance of the rows."""
    if not storage.exists(PROVENANCE):
        return
    with storage.open(PROVENANCE) as file:
        beside = Provenance.from_json(file.read(LARGEST + 1), f"{storage.url}/{PROVENANCE}")
    if different := beside.differences(tokens.provenance):
        raise ValueError(
            f"{storage.url}/{PROVENANCE} contradicts the rows beside it ({'; '.join(different)}): "
            "restore both from a copy, or make the dataset again with `tokgen tokenize`"
        )


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
                "rate, conditioning or precision: tokenize them with equal settings"
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


def check_codec(provenance: Provenance, spec: CodecSpec) -> None:
    """Raise ValueError if tokens were made by another codec; the message names both."""
    theirs = provenance.spec
    if theirs.weight_hash != spec.weight_hash:
        raise ValueError(
            f"the tokens were made by codec {theirs.name!r} (weights {theirs.weight_hash[:12]}), "
            f"not by {spec.name!r} (weights {spec.weight_hash[:12]}): tokenize again, or load "
            f"{theirs.name!r}"
        )
    for name in ("sample_rate", "hop_length", "codebook_size", "chunk_length", "chunk_stride"):
        if (found := getattr(theirs, name)) != (wanted := getattr(spec, name)):
            raise ValueError(
                f"the provenance of the tokens says {name} = {found}, but codec {spec.name!r} has "
                f"{wanted}: tokenize again"
            )
