"""Token datasets: open one, and read its columns and its provenance.

A token dataset is a `datasets.DatasetDict` with one row per utterance: id, codes [T, K] uint16,
n_samples, text, speaker and optionally a conditioning, mfcc [T, 30] or log_mel [T, 80] float16.
If the codec decodes with side information, each kind has a column, such as `side_scales` [S]
float32. `Provenance` is in provenance.json and in every split's description, which slices keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tokgen.codec.spec import CodecSpec, Side
from tokgen.storage import Storage
from tokgen.tokens.conditioning import CONDITIONINGS, ConditioningSettings

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict, Features

PROVENANCE, REJECTIONS = "provenance.json", "rejections.jsonl"


@dataclass(frozen=True)
class Provenance:
    """The codec, corpus and settings that a token dataset was made with.

    Attributes:
        codec: `CodecSpec.as_dict()`.
        sample_rate: Hz.
        hop_length: samples per frame.
        n_codebooks: levels kept, at most the codec's.
        codebook_size: entries per level.
        conditioning: `ConditioningSettings` as a dict, or None.
        tokgen_version: version of tokgen that wrote the dataset.
        corpus: name of the corpus.
        corpus_fingerprint: SHA-256 over the corpus' content.
        side_names: kinds of side information in the rows.
        precision: number format that the codec ran in (`tokgen.tokens.precision`).
    """

    codec: dict[str, Any]
    sample_rate: int
    hop_length: int
    n_codebooks: int
    codebook_size: int
    conditioning: dict[str, Any] | None
    tokgen_version: str
    corpus: str
    corpus_fingerprint: str
    side_names: list[str] = field(default_factory=list)
    precision: str = "float32"

    @property
    def spec(self) -> CodecSpec:
        return CodecSpec(**self.codec)

    @property
    def conditioning_sizes(self) -> dict[str, int]:
        """Number of features by the conditioning's column; empty without conditioning."""
        if self.conditioning is None:
            return {}
        settings = ConditioningSettings(**self.conditioning)
        return {settings.kind: settings.n_features}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, text: str, source: str) -> Provenance:
        """Parse JSON, or raise ValueError; `source` is the dataset's name for the message."""
        try:
            content = json.loads(text)
            if "mfcc" in content:  # older datasets use this name for the conditioning
                content["conditioning"] = content.pop("mfcc")
            provenance = cls(**content)
            provenance.spec  # noqa: B018 - checks the values
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{source} has no readable provenance ({error}), so it is not a token dataset; "
                "make one with `tokgen tokenize`"
            ) from error
        return provenance

    def makes_equal_rows(self, other: Provenance) -> bool:
        """Return whether both describe the same rows, ignoring the codec's and corpus' names."""

        def content(p: Provenance) -> dict[str, Any]:
            given = p.conditioning
            if given is not None:  # older datasets lack these settings
                given = {"chunk_length": 0, "chunk_stride": 0, "kind": "mfcc", **given}
            codec = p.codec["weight_hash"]
            return {**p.as_dict(), "corpus": None, "codec": codec, "conditioning": given}

        return content(self) == content(other)


@dataclass(frozen=True)
class TokenDataset:
    """An open token dataset, with rows such as `splits["train"][0]["codes"]`."""

    splits: DatasetDict
    provenance: Provenance


def load_tokens(location: str | Path) -> TokenDataset:
    """Open a token dataset that `tokenize_corpus` wrote, in Arrow or Parquet format.

    Args:
        location: path or fsspec URL of the dataset's folder. Parquet is copied to the cache of
            `datasets` and memory-mapped from there.
    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder is not a token dataset, or not a finished one.
    """
    from datasets import DatasetDict, load_dataset, load_from_disk

    storage = Storage(location)
    if storage.path is not None and not storage.path.is_dir():
        raise FileNotFoundError(f"no token dataset {location}: make one with `tokgen tokenize`")
    if storage.is_local and storage.exists("dataset_dict.json"):
        splits = load_from_disk(storage.url)
        if not isinstance(splits, DatasetDict):
            raise ValueError(f"{location} is one split of a dataset: give the folder above it")
    elif storage.exists(PROVENANCE) and (shards := storage.names("data/")):
        files: dict[str, list[str]] = {}
        for name in shards:  # data/<split>-<unit>.parquet
            split = name.removeprefix("data/").rpartition("-")[0]
            files.setdefault(split, []).append(f"{storage.url}/{name}")
        with quiet_datasets():
            splits = load_dataset("parquet", data_files=files)
        text = json.dumps(json.loads(storage.read(PROVENANCE)))
        for part in splits.values():
            part.info.description = text
    else:
        raise ValueError(
            f"{location} is not a finished token dataset: it has neither dataset_dict.json nor "
            f"{PROVENANCE} with shards in data/"
        )
    return TokenDataset(splits, provenance_of(splits))


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


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Switch off the progress bars of `datasets`."""
    import datasets

    was_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not was_off:
            datasets.enable_progress_bars()


def provenance_of(dataset: Dataset | DatasetDict) -> Provenance:
    """Return the provenance of a dataset or of one split.

    Raises:
        ValueError: there is no provenance, or that of the splits differs.
    """
    if not isinstance(dataset, dict):
        return Provenance.from_json(dataset.info.description, "the dataset")
    found = {split: provenance_of(part) for split, part in dataset.items()}
    if not found:
        raise ValueError("the dataset has no splits")
    first, provenance = next(iter(found.items()))
    if different := [split for split in found if found[split] != provenance]:
        raise ValueError(
            f"splits {different} have another provenance than {first!r}: "
            "tokenize all of them in one run"
        )
    return provenance


def check_codec(provenance: Provenance, spec: CodecSpec) -> None:
    """Raise ValueError if tokens were made by another codec; the message names both."""
    theirs = provenance.spec
    if theirs.weight_hash != spec.weight_hash:
        raise ValueError(
            f"the tokens were made by codec {theirs.name!r} (weights {theirs.weight_hash[:12]}), "
            f"not by {spec.name!r} (weights {spec.weight_hash[:12]}): tokenize again, or load "
            f"{theirs.name!r}"
        )


def sides_of(rows: Dataset, names: Sequence[str]) -> list[Side] | None:
    """Return the side information of each row, for `Codec.decode_batch`.

    Args:
        rows: rows of a token dataset.
        names: `Codec.side_names`. If there are none, the result is None.
    Raises:
        ValueError: the rows have no side information of these names.
    """
    missing = [name for name in names if side_column(name) not in rows.column_names]
    if missing:
        raise ValueError(
            f"the token dataset holds no side information {missing}, which decoding needs: "
            "tokenize again"
        )
    if not names:
        return None
    columns = {name: rows[side_column(name)] for name in names}
    return [
        {name: torch.as_tensor(columns[name][i], dtype=torch.float32) for name in names}
        for i in range(len(rows))
    ]


def side_column(name: str) -> str:
    """Return the column for a kind of side information."""
    return f"side_{name}"


def conditioning_column(dataset: Dataset) -> str | None:
    """Return the column that holds the conditioning, one of `CONDITIONINGS`, or None."""
    return next((name for name in CONDITIONINGS if name in dataset.column_names), None)


def conditioning_of(rows: Dataset) -> list[torch.Tensor] | None:
    """Return the conditioning [T, C] float32 of each row, or None if there is none."""
    name = conditioning_column(rows)
    if name is None:
        return None
    return [torch.tensor(frames, dtype=torch.float32) for frames in rows[name]]


def token_features(
    n_codebooks: int, conditioning: Mapping[str, int], side_names: Sequence[str] = ()
) -> Features:
    """Return the column types of a token dataset; `conditioning` is features by column name."""
    from datasets import Features, List, Value

    columns = {
        "id": Value("string"),
        "codes": List(List(Value("uint16"), length=n_codebooks)),
        "n_samples": Value("int64"),
        "text": Value("string"),
        "speaker": Value("string"),
    }
    for name, size in conditioning.items():
        columns[name] = List(List(Value("float16"), length=size))
    columns |= {side_column(name): List(Value("float32")) for name in side_names}
    return Features(columns)


def compute_statistics(dataset: Any) -> tuple[list[float], list[float]]:
    """Return the mean and standard deviation [C] of each conditioning feature over all frames."""
    column = conditioning_column(dataset)
    if column is None:
        raise ValueError(
            "the token dataset has no conditioning: tokenize it with one of "
            f"{', '.join(CONDITIONINGS)}"
        )
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for row in dataset.with_format("numpy", columns=[column]):
        frames = row[column].astype(np.float64)
        count += len(frames)
        total, squares = total + frames.sum(0), squares + (frames**2).sum(0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
    return mean.tolist(), deviation.tolist()
