"""Columns of a token dataset: their types, their values as tensors, and their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tokgen.codec.spec import DEPTH, Side
from tokgen.tokens.conditioning import CONDITIONINGS
from tokgen.tokens.provenance import has_provenance, provenance_of, side_column

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = [
    "TEXT_FRAMES",
    "codes_of",
    "compute_statistics",
    "conditioning_column",
    "conditioning_of",
    "depths_of",
    "filled",
    "latents_of",
    "live_codes",
    "matrices",
    "ragged",
    "sides_of",
    "token_features",
    "variable_levels",
]

TEXT_FRAMES = "text_frames"  # conditioning that a text model made; only in memory


def codes_of(rows: Dataset) -> list[Tensor]:
    """Return the codes int64 [K, T] of each row, for `Codec.decode_batch`.

    With a variable bitrate, codes past the depth of a frame are 0; see `depths_of`.
    """
    n_codebooks = variable_levels(rows)
    if n_codebooks is None:
        return [torch.as_tensor(codes, dtype=torch.int64).T for codes in rows["codes"]]
    return [filled(frames, n_codebooks)[0] for frames in _frames(rows)]


def latents_of(rows: Dataset) -> list[Tensor]:
    """Return the latents float32 [D, T] of each row of a latent dataset."""
    width = provenance_of(rows).latent_dim
    column = rows.with_format("arrow", columns=["latents"])[:]["latents"]
    each = (row.values.flatten().to_numpy(zero_copy_only=False) for row in column)
    return [torch.from_numpy(x.astype(np.float32)).view(-1, width).mT for x in each]


def depths_of(rows: Dataset) -> list[Tensor] | None:
    """Return the levels of each frame, int64 [T] in 1..K, of each row.

    None if all frames have K levels, as without a variable bitrate.
    """
    return None if variable_levels(rows) is None else [_depth(f) for f in _frames(rows)]


def variable_levels(rows: Dataset) -> int | None:
    """Return K, the most levels of a frame, if frames differ in it; else None.

    Args:
        rows: rows of a token dataset, in any format.
    """
    frame = getattr(rows.features["codes"], "feature", None)
    if getattr(frame, "length", -1) != -1 or not has_provenance(rows):
        return None
    provenance = provenance_of(rows)
    return None if provenance.rate is None else provenance.n_codebooks


def filled(frames: pa.Array, n_codebooks: int) -> tuple[Tensor, Tensor]:
    """Convert frames of unequal depth, a list of codes each, to tensors.

    Args:
        frames: one list of codes per frame, all or part of a row.
        n_codebooks: K.
    Returns:
        codes int64 [K, T], 0 past the depth, and the depth int64 [T].
    """
    depth = _depth(frames)
    codes = torch.zeros(len(depth), n_codebooks, dtype=torch.int64)
    live = frames.flatten().to_numpy().astype(np.int64)
    codes[torch.arange(n_codebooks) < depth[:, None]] = torch.from_numpy(live)
    return codes.T, depth


def _depth(frames: pa.Array) -> Tensor:
    return torch.from_numpy(frames.value_lengths().to_numpy().astype(np.int64))


def _frames(rows: Dataset) -> Iterator[pa.Array]:
    """Yield the lists of codes of each row."""
    for row in rows.with_format("arrow", columns=["codes"])[:]["codes"]:
        yield row.values


def sides_of(rows: Dataset, names: Sequence[str]) -> list[Side] | None:
    """Return the side information of each row, for `Codec.decode_batch`.

    Rows of a variable bitrate have a depth, whatever the names. The depth of other rows is K.

    Args:
        rows: rows of a token dataset.
        names: `Codec.side_names`. If there is none, and no depth, the result is None.
    Raises:
        ValueError: the rows have no side information of these names.
    """
    stored = [name for name in names if name != DEPTH]
    missing = [name for name in stored if side_column(name) not in rows.column_names]
    if missing:
        raise ValueError(
            f"the token dataset holds no side information {missing}, which decoding needs: "
            "tokenize again"
        )
    columns = {name: rows[side_column(name)] for name in stored}
    depths = depths_of(rows)
    if depths is None and DEPTH in names:
        depths = [torch.full(codes.shape[1:], len(codes)) for codes in codes_of(rows)]
    if not stored and depths is None:
        return None
    sides: list[dict[str, Tensor]] = [
        {name: torch.as_tensor(columns[name][i], dtype=torch.float32) for name in stored}
        for i in range(len(rows))
    ]
    for side, depth in zip(sides, depths or [], strict=bool(depths)):
        side[DEPTH] = depth.float()
    return list(sides)


def conditioning_column(dataset: Dataset) -> str | None:
    """Return the column that holds the conditioning, or None.

    It is one of `CONDITIONINGS`, or `TEXT_FRAMES`.
    """
    known = (TEXT_FRAMES, *CONDITIONINGS)
    return next((name for name in known if name in dataset.column_names), None)


def conditioning_of(rows: Dataset) -> list[Tensor] | None:
    """Return the conditioning [T, C] float32 of each row, or None if there is none."""
    name = conditioning_column(rows)
    if name is None:
        return None
    return [torch.tensor(frames, dtype=torch.float32) for frames in rows[name]]


def token_features(
    width: int,
    conditioning: Mapping[str, int],
    side_names: Sequence[str] = (),
    *,
    column: str = "codes",
    packed: bool = False,
    variable: bool = False,
) -> Features:
    """Return the column types of a token or latent dataset.

    Args:
        width: values per frame, K or D.
        conditioning: features by column name.
        side_names: kinds of side information.
        column: "codes" (uint16) or "latents" (float16).
        packed: store the codes as bytes, see `tokgen.tokens.packed`.
        variable: frames have unequal numbers of codes, up to `width`.
    """
    from datasets import Features, List, Value

    kind = Value("float16" if column == "latents" else "uint16")
    frame = List(kind) if variable else List(kind, length=width)
    columns = {
        "id": Value("string"),
        column: Value("binary") if packed else List(frame),
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


def live_codes(codes: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the codes [T, K] up to the depth [T], frame by frame."""
    return codes[np.arange(codes.shape[1]) < depth[:, None]]


def ragged(live: Sequence[np.ndarray], depths: Sequence[np.ndarray]) -> pa.ListArray:
    """Convert codes up to their depth [T_i] to one list array of lists of unequal length."""
    offsets = np.cumsum([0, *(len(depth) for depth in depths)], dtype=np.int32)
    frames = np.concatenate([[0], np.concatenate(depths).cumsum()]).astype(np.int32)
    inner = pa.ListArray.from_arrays(frames, pa.array(np.concatenate(live)))
    return pa.ListArray.from_arrays(offsets, inner)


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
