"""The token dataset on disk: what made it, what its rows hold, how to open it.

A `datasets.DatasetDict` with one row per utterance: id, codes [T, K] uint16, n_samples, text,
speaker and, if wanted, a conditioning: mfcc [T, 30] or log_mel [T, 80], float16. A codec that
decodes with side information adds a column for each kind, `side_scales` [S] float32 say.
`Provenance` is stored in every split's description, so that it survives copying and slicing, and
in provenance.json beside.
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
    """What a token dataset was made of.

    Attributes:
        codec: `CodecSpec.as_dict()`.
        sample_rate: Hz.
        hop_length: samples per frame.
        n_codebooks: levels kept, at most the codec's.
        codebook_size: entries per level.
        conditioning: settings of the conditioning, None where there is none.
        tokgen_version: of the package that wrote it.
        corpus: its name.
        corpus_fingerprint: SHA-256 over its content.
        side_names: of the side information in the rows.
        precision: that the codec ran in (`tokgen.tokens.precision`).
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
        """Its column and the coefficients there; empty without conditioning."""
        if self.conditioning is None:
            return {}
        settings = ConditioningSettings(**self.conditioning)
        return {settings.kind: settings.n_features}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, text: str, where: str) -> Provenance:
        """Parse; raises ValueError naming `where`."""
        try:
            content = json.loads(text)
            if "mfcc" in content:  # its name before there was another conditioning
                content["conditioning"] = content.pop("mfcc")
            provenance = cls(**content)
            provenance.spec  # noqa: B018 - checks the numbers
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{where} has no readable provenance ({error}): not a token dataset; "
                "make one with `tokgen tokenize`"
            ) from error
        return provenance

    def makes_equal_rows(self, other: Provenance) -> bool:
        """Whether both describe the same rows, whatever codec and corpus are called."""

        def content(p: Provenance) -> dict[str, Any]:
            given = p.conditioning
            if given is not None:  # all that such settings depend on, these once not among them
                given = {"chunk_length": 0, "chunk_stride": 0, "kind": "mfcc", **given}
            codec = p.codec["weight_hash"]
            return {**p.as_dict(), "corpus": None, "codec": codec, "conditioning": given}

        return content(self) == content(other)


@dataclass(frozen=True)
class TokenDataset:
    """A token dataset as opened: `splits["train"][0]["codes"]` and so on."""

    splits: DatasetDict
    provenance: Provenance


def load_tokens(where: str | Path) -> TokenDataset:
    """Open what `tokenize_corpus` wrote, as Arrow or as Parquet.

    Args:
        where: its folder, or an fsspec URL. Parquet is copied into the cache of `datasets`, whence
            it is mapped into memory.
    Raises:
        FileNotFoundError: no such folder.
        ValueError: not a token dataset, or one that is not finished.
    """
    from datasets import DatasetDict, load_from_disk

    storage = Storage(where)
    if storage.path is not None and not storage.path.is_dir():
        raise FileNotFoundError(f"no token dataset {where}: make one with `tokgen tokenize`")
    shards = storage.names("data/") if storage.exists(PROVENANCE) else []
    if shards and not storage.exists("dataset_dict.json"):
        splits = _load_parquet(storage, shards)
        return TokenDataset(splits, provenance_of(splits))
    if storage.path is None:
        raise ValueError(f"{where} is not a token dataset, or not a finished one: no {PROVENANCE}")
    if not storage.exists("dataset_dict.json"):
        raise ValueError(f"{where} is not a token dataset: it has no dataset_dict.json")
    splits = load_from_disk(str(storage.path))
    if not isinstance(splits, DatasetDict):
        raise ValueError(f"{where} is a dataset without splits: give the folder that holds them")
    return TokenDataset(splits, provenance_of(splits))


def _load_parquet(storage: Storage, shards: Sequence[str]) -> DatasetDict:
    from datasets import load_dataset

    files: dict[str, list[str]] = {}
    for name in shards:  # data/<split>-<unit>.parquet
        split = name.removeprefix("data/").rpartition("-")[0]
        files.setdefault(split, []).append(f"{storage.url}/{name}")
    with quiet_datasets():
        splits = load_dataset("parquet", data_files=files)
    text = json.dumps(json.loads(storage.read(PROVENANCE)))
    for part in splits.values():
        part.info.description = text
    return splits


def lengths_in(storage: Storage) -> Iterator[int]:
    """Samples of every utterance of a finished dataset, without its codes."""
    if storage.exists("dataset_dict.json"):
        for part in load_tokens(storage.url).splits.values():
            yield from part.data["n_samples"].to_pylist()
        return
    for name in storage.names("data/"):
        yield from read_shard(storage, name, ["n_samples"])["n_samples"].to_pylist()


def read_shard(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns, read here and now.

    pyarrow would read a Python file ahead in threads of its own, and one that is still at it when
    the process ends aborts it.
    """
    import pyarrow.parquet as pq

    with storage.open(name) as file, pq.ParquetFile(file, pre_buffer=False) as table:
        return table.read(columns, use_threads=False)


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Without the progress bars of `datasets`, which say nothing of the run."""
    import datasets

    was_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not was_off:
            datasets.enable_progress_bars()


def provenance_of(dataset: Dataset | DatasetDict) -> Provenance:
    """What a dataset, or every split of one, was made of.

    Raises:
        ValueError: it does not say, or the splits differ.
    """
    if not isinstance(dataset, dict):
        return Provenance.from_json(dataset.info.description, "the dataset")
    found = {split: provenance_of(part) for split, part in dataset.items()}
    if not found:
        raise ValueError("the dataset has no splits")
    first = next(iter(found.values()))
    different = [split for split, provenance in found.items() if provenance != first]
    if different:
        raise ValueError(
            f"splits {different} were made otherwise than {next(iter(found))!r}: "
            "tokenize all of them in one run"
        )
    return first


def check_codec(provenance: Provenance, spec: CodecSpec) -> None:
    """Refuse tokens of another codec.

    Raises:
        ValueError: naming both codecs.
    """
    theirs = provenance.spec
    if theirs.weight_hash != spec.weight_hash:
        raise ValueError(
            f"the tokens were made by codec {theirs.name!r} (weights {theirs.weight_hash[:12]}), "
            f"not by {spec.name!r} (weights {spec.weight_hash[:12]}): tokenize again, or load "
            f"{theirs.name!r}"
        )


def sides_of(rows: Dataset, names: Sequence[str]) -> list[Side] | None:
    """Side information of each row, as `Codec.decode_batch` takes it.

    Args:
        rows: of a token dataset.
        names: `Codec.side_names`; None comes back where it has none.
    Raises:
        ValueError: the rows do not hold it.
    """
    missing = [name for name in names if side_column(name) not in rows.column_names]
    if missing:
        raise ValueError(
            f"the token dataset holds no side information {missing}, without which its codes "
            "cannot be decoded: tokenize again"
        )
    if not names:
        return None
    columns = {name: rows[side_column(name)] for name in names}
    return [
        {name: torch.as_tensor(columns[name][i], dtype=torch.float32) for name in names}
        for i in range(len(rows))
    ]


def side_column(name: str) -> str:
    """Where side information of a kind stands in a token dataset."""
    return f"side_{name}"


def conditioning_column(dataset: Dataset) -> str | None:
    """The column that holds the conditioning, one of `CONDITIONINGS`; None without one."""
    return next((name for name in CONDITIONINGS if name in dataset.column_names), None)


def conditioning_of(rows: Dataset) -> list[torch.Tensor] | None:
    """Conditioning [T, C] float32 of each row; None without one."""
    name = conditioning_column(rows)
    if name is None:
        return None
    return [torch.tensor(frames, dtype=torch.float32) for frames in rows[name]]


def token_features(
    n_codebooks: int, conditioning: Mapping[str, int], side_names: Sequence[str] = ()
) -> Features:
    """Columns of a token dataset; `conditioning` is name -> coefficients, or empty."""
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
    """Mean and standard deviation [C] of each conditioning coefficient over all frames."""
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
