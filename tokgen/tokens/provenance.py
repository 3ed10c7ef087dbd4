"""The codec, corpus and settings behind a token dataset, kept with its rows.

`Provenance` is JSON in three places of a dataset:

    features         the `id` of the innermost type of the column `codes`. It survives
                     `load_dataset`, `push_to_hub`, `to_parquet`, `save_to_disk`, `select`,
                     `filter` and `map`.
    Parquet files    the schema's metadata, under `METADATA_KEY`, for other libraries
    provenance.json  beside the data; on object storage it also says that the dataset is complete
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tokgen.codec.spec import CodecSpec
from tokgen.tokens.conditioning import ConditioningSettings

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features, IterableDataset

__all__ = [
    "LARGEST",
    "METADATA_KEY",
    "PROVENANCE",
    "Provenance",
    "add_provenance",
    "attach_provenance",
    "carries_provenance",
    "provenance_of",
    "side_column",
]

PROVENANCE = "provenance.json"
METADATA_KEY = b"tokgen.provenance"
LARGEST = 1 << 16  # characters of JSON; a real provenance has about a thousand
_PREFIX = "tokgen.provenance "  # before the JSON in the features


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

    def to_json(self, indent: int | None = None) -> str:
        return json.dumps(self.as_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Provenance:
        """Parse JSON, or raise ValueError; `source` is the dataset's name for the message."""
        try:
            if len(text) > LARGEST:
                raise ValueError(f"{len(text)} characters, more than {LARGEST}")
            content = json.loads(text)
            if not isinstance(content, dict):
                raise ValueError(f"a {type(content).__name__}, not an object")
            if "mfcc" in content:  # older datasets use this name for the conditioning
                content["conditioning"] = content.pop("mfcc")
            provenance = cls(**content)
            provenance._check()
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"{source} has no readable provenance ({error}), so it is not a token dataset; "
                "make one with `tokgen tokenize`"
            ) from error
        return provenance

    def _check(self) -> None:
        """Raise ValueError or TypeError if a value has another type or is out of range."""
        spec, sizes = self.spec, self.conditioning_sizes
        for name in ("sample_rate", "hop_length", "n_codebooks", "codebook_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} = {value!r}: must be an integer of at least 1")
        if self.n_codebooks > spec.n_codebooks:
            raise ValueError(f"n_codebooks = {self.n_codebooks}: {spec.n_codebooks} at most")
        if any(type(size) is not int for size in sizes.values()):
            raise ValueError(f"conditioning of {sizes} features")
        texts = [spec.name, spec.weight_hash, self.tokgen_version, self.corpus, self.precision]
        if not all(isinstance(t, str) for t in [*texts, self.corpus_fingerprint, *self.side_names]):
            raise ValueError("a name or a hash is not a string")

    def makes_equal_rows(self, other: Provenance) -> bool:
        """Return whether both describe the same rows, ignoring the codec's and corpus' names."""

        def content(p: Provenance) -> dict[str, Any]:
            given = p.conditioning
            if given is not None:  # older datasets lack these settings
                given = {"chunk_length": 0, "chunk_stride": 0, "kind": "mfcc", **given}
            codec = p.codec["weight_hash"]
            return {**p.as_dict(), "corpus": None, "codec": codec, "conditioning": given}

        return content(self) == content(other)


def provenance_of(dataset: Dataset | IterableDataset | DatasetDict) -> Provenance:
    """Return the provenance of a dataset or of one split.

    The dataset can come from `load_tokens`, from `datasets.load_dataset` or `load_from_disk`, or be
    made from such a dataset by `select`, `filter`, `map` and the like.

    Raises:
        ValueError: there is no provenance, or that of the splits differs.
    """
    if not isinstance(dataset, dict):
        text = _find_in(dataset.features or {}) or dataset.info.description
        if not text:
            raise ValueError(
                "the dataset has no readable provenance, so it is not a token dataset; make one "
                "with `tokgen tokenize`, or open an old one with `tokgen.load_tokens`"
            )
        return Provenance.from_json(text, "the dataset")
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


def carries_provenance(dataset: DatasetDict) -> bool:
    """Return whether the features of all splits have a provenance, readable or not."""
    return all(_find_in(part.features or {}) is not None for part in dataset.values())


def add_provenance(features: Features, provenance: Provenance) -> Features:
    """Return features of a token dataset that carry its provenance."""
    features = copy.deepcopy(features)
    _innermost(features["codes"]).id = _PREFIX + provenance.to_json()
    return features


def attach_provenance(dataset: Dataset, provenance: Provenance) -> Dataset:
    """Return the same rows, with a provenance in their features; no data is copied."""
    from datasets import Dataset

    info = dataset.info.copy()
    info.features = add_provenance(dataset.features, provenance)
    return Dataset(dataset.data, info=info, split=dataset.split, indices_table=dataset._indices)


def side_column(name: str) -> str:
    """Return the column for a kind of side information."""
    return f"side_{name}"


def _find_in(features: Mapping[str, Any]) -> str | None:
    """Return the JSON in the features; any column is searched, as `codes` may be renamed."""
    for feature in features.values():
        text = getattr(_innermost(feature), "id", None)
        if isinstance(text, str) and text.startswith(_PREFIX):
            return text.removeprefix(_PREFIX)
    return None


def _innermost(feature: Any) -> Any:
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature
