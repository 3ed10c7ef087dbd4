"""Columns of a token dataset: their types, their values as tensors, and their statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tokgen.codec.spec import Side
from tokgen.tokens.conditioning import CONDITIONINGS
from tokgen.tokens.provenance import side_column

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = [
    "codes_of",
    "compute_statistics",
    "conditioning_column",
    "conditioning_of",
    "matrices",
    "sides_of",
    "token_features",
]


def codes_of(rows: Dataset) -> list[Tensor]:
    """Return the codes int64 [K, T] of each row, for `Codec.decode_batch`."""
    return [torch.as_tensor(codes, dtype=torch.int64).T for codes in rows["codes"]]


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


def conditioning_column(dataset: Dataset) -> str | None:
    """Return the column that holds the conditioning, one of `CONDITIONINGS`, or None."""
    return next((name for name in CONDITIONINGS if name in dataset.column_names), None)


def conditioning_of(rows: Dataset) -> list[Tensor] | None:
    """Return the conditioning [T, C] float32 of each row, or None if there is none."""
    name = conditioning_column(rows)
    if name is None:
        return None
    return [torch.tensor(frames, dtype=torch.float32) for frames in rows[name]]


def token_features(
    n_codebooks: int,
    conditioning: Mapping[str, int],
    side_names: Sequence[str] = (),
    *,
    packed: bool = False,
) -> Features:
    """Return the column types of a token dataset; `conditioning` is features by column name.

    Args:
        packed: store the codes as bytes, see `tokgen.tokens.packed`.
    """
    from datasets import Features, List, Value

    columns = {
        "id": Value("string"),
        "codes": Value("binary") if packed else List(List(Value("uint16"), length=n_codebooks)),
        "n_samples": Value("int64"),
        "text": Value("string"),
        "speaker": Value("string"),
    }
    for name, size in conditioning.items():
        columns[name] = List(List(Value("float16"), length=size))
    columns |= {side_column(name): List(Value("float32")) for name in side_names}
    return Features(columns)


def matrices(arrays: Sequence[np.ndarray]) -> pa.ListArray:
    """Convert arrays [T_i, C] to one list array of fixed-size lists."""
    width = arrays[0].shape[1]
    offsets = np.cumsum([0, *(len(a) for a in arrays)], dtype=np.int32)
    values = pa.array(np.concatenate([a.reshape(-1) for a in arrays]))
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, width))


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
