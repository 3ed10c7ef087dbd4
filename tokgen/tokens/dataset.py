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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.tokens.columns import codes_of, sides_of
from tokgen.tokens.opening import CodedDataset, check_same_weights, open_rows, with_provenance
from tokgen.tokens.provenance import Provenance

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["TokenDataset", "check_codec", "concatenate_tokens", "load_tokens"]


@dataclass(frozen=True, repr=False)
class TokenDataset(CodedDataset):
    """An open token dataset.

    Attributes:
        splits: rows by split, such as `splits["train"][0]["codes"]` [T, K].
        provenance: codec, corpus and settings behind the rows.
        source: folder, URL or hub id that it was loaded from; None for one made in memory.
        made_test_split: `with_test_split` made the test split of a part of another one.
    """

    made_test_split: bool = False

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
        ValueError: it is not a token dataset (but a latent one, for example), or not a finished
            one; a file is damaged or lies outside the folder; or rows contradict the provenance
            (see `check_rows`).
    """
    return TokenDataset(
        *open_rows(
            source,
            "codes",
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            follow_links=follow_links,
        )
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
        for split, part in with_provenance(dataset.splits, joined).items():
            parts.setdefault(str(split), []).append(part)
    splits = {split: concatenate_datasets(found) for split, found in parts.items()}
    return TokenDataset(DatasetDict(splits), joined)


def check_codec(provenance: Provenance, spec: CodecSpec) -> None:
    """Raise ValueError if tokens were made by another codec; the message names both."""
    check_same_weights(provenance, spec)
    theirs = provenance.spec
    for name in ("sample_rate", "hop_length", "codebook_size", "chunk_length", "chunk_stride"):
        if (found := getattr(theirs, name)) != (wanted := getattr(spec, name)):
            raise ValueError(
                f"the provenance of the tokens says {name} = {found}, but codec {spec.name!r} has "
                f"{wanted}: tokenize again"
            )
