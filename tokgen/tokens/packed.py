"""Token datasets whose codes are stored as packed bytes, one value of `codes` per utterance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from tokgen.codec.packing import packed_size, unpack_codes, unpack_variable
from tokgen.runs.progress import quiet_libraries
from tokgen.tokens.columns import matrices, ragged, token_features
from tokgen.tokens.provenance import Provenance

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["is_packed", "unpack_rows"]

_FIX = "make the dataset again with `tokgen tokenize`"


def is_packed(rows: Dataset) -> bool:
    """Return whether the codes of a split are packed."""
    kind = rows.data.schema.field("codes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def unpack_rows(rows: Dataset, provenance: Provenance, source: str) -> Dataset:
    """Return the same rows with `codes` [T, K] uint16; other columns are not copied.

    Rows of files are unpacked once, into the cache of `datasets` beside the copy of the files.

    Args:
        source: name of the rows, for messages.
    Raises:
        ValueError: the bytes of a row are not those of its codes.
    """
    from datasets import concatenate_datasets

    names = rows.column_names
    if rows._indices is not None:
        rows = rows.flatten_indices()
    features = token_features(provenance.n_codebooks, {}, variable=provenance.rate is not None)
    with quiet_libraries():
        codes = (
            rows.select_columns(["codes", "n_samples"])
            .with_format("arrow")
            .map(
                _unpacked,
                with_indices=True,
                batched=True,
                features=type(features)({name: features[name] for name in ("codes", "n_samples")}),
                fn_kwargs={"provenance": provenance.to_json(), "source": source},
            )
            .select_columns(["codes"])
            .with_format(None)
        )
    joined = concatenate_datasets([rows.remove_columns("codes"), codes], axis=1)
    return joined.select_columns(names)


def _unpacked(table: pa.Table, indices: list[int], provenance: str, source: str) -> pa.Table:
    about = Provenance.from_json(provenance, source)
    spec, k, size = about.spec, about.n_codebooks, about.codebook_size
    found, depths = [], []
    columns = table["codes"].to_pylist(), table["n_samples"].to_pylist()
    for row, data, n_samples in zip(indices, *columns, strict=True):
        try:
            if data is None or n_samples is None or n_samples < 1:
                raise ValueError("no codes, or no n_samples")
            n_frames = int(spec.n_frames(n_samples))
            if about.rate is not None:
                live, depth = unpack_variable(data, n_frames, k, size)
                found.append(live.astype("uint16"))
                depths.append(depth)
                continue
            if len(data) != packed_size(n_frames * k, size):  # before memory is taken
                raise ValueError(
                    f"{len(data)} bytes of packed codes for {n_samples} samples, expected "
                    f"{packed_size(n_frames * k, size)}"
                )
            found.append(unpack_codes(data, n_frames, k, size).astype("uint16"))
        except ValueError as error:
            reason = f"{source}, row {row}, column 'codes': {error}; {_FIX}"
            raise ValueError(reason) from error
    codes = matrices(found) if about.rate is None else ragged(found, depths)
    return pa.table({"codes": codes, "n_samples": table["n_samples"]})
