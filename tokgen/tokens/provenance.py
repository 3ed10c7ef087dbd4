"""The codec, corpus and settings behind a token or latent dataset, kept with its rows.

`Provenance` is JSON in three places of a dataset:

    features         the `id` of the innermost type of the column `codes` or `latents`. It survives
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

from tokgen.codec.continuous import ContinuousSpec
from tokgen.codec.depth import Rate
from tokgen.codec.identity import encodes_like, show_hashes
from tokgen.codec.spec import MAX_BEAM, CodecSpec
from tokgen.tokens.conditioning import ConditioningSettings

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features, IterableDataset

__all__ = [
    "CORPUS_CHANGED",
    "LARGEST",
    "METADATA_KEY",
    "PROVENANCE",
    "Provenance",
    "add_provenance",
    "attach_provenance",
    "describe_rate",
    "has_provenance",
    "provenance_of",
    "side_column",
]

PROVENANCE = "provenance.json"
METADATA_KEY = b"tokgen.provenance"
CORPUS_CHANGED = "audio or texts of the corpus"  # in `Provenance.differences`
LARGEST = 1 << 16  # characters of JSON; a real provenance has about a thousand
_LIMITS = {
    "sample_rate": 10**7,
    "hop_length": 10**8,
    "n_codebooks": 1 << 16,
    "codebook_size": 1 << 16,
    "latent_dim": 1 << 16,
    "beam": MAX_BEAM,
    "channels": 1 << 16,
    "chunk_length": 10**9,
    "chunk_stride": 10**9,
    "n_mfcc": 1 << 16,
    "n_mels": 1 << 16,
    "n_fft": 1 << 24,
}
_RATES = ("level", "bitrate")
_OF_CODES = ("n_codebooks", "codebook_size")  # 0 for latents, and not in their JSON
_DESCRIBED = {"codec", "corpus", "corpus_fingerprint", "conditioning", *_RATES}  # by `differences`
_PREFIX = "tokgen.provenance "  # before the JSON in the features


@dataclass(frozen=True)
class Provenance:
    """The codec, corpus and settings that a token or latent dataset was made with.

    Attributes:
        codec: `CodecSpec.as_dict()`, or that of `ContinuousSpec`.
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
        beam: paths of the beam search that chose the codes; 1 is greedy.
        distance: what the search minimised, one of `tokgen.codec.spec.DISTANCES`; "" if greedy.
        channels: channels that were kept of the audio; 1 is their mean.
        level, bitrate: how a codec of variable bitrate chose the levels of each frame, as in
            `Codec.with_rate`; both None if all frames have `n_codebooks` levels.
        latent_dim: latents per frame of a latent dataset, which has no levels: `n_codebooks` and
            `codebook_size` are 0. It is 0 for a token dataset.
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
    beam: int = 1
    distance: str = ""
    channels: int = 1
    level: float | None = None
    bitrate: float | None = None
    latent_dim: int = 0

    @property
    def column(self) -> str:
        """The column of the codec's output: "codes" [T, K] or "latents" [T, D]."""
        return "latents" if self.latent_dim else "codes"

    @property
    def content(self) -> str:
        """Content of the rows as messages name it: "tokens" or "latents"."""
        return "latents" if self.latent_dim else "tokens"

    @property
    def width(self) -> int:
        """Values per frame in that column: K, or D."""
        return self.latent_dim or self.n_codebooks

    @property
    def rate(self) -> Rate | None:
        """How the levels of each frame were chosen; None if all frames have all of them."""
        if self.level is None and self.bitrate is None:
            return None
        return Rate(self.level, self.bitrate, self.n_codebooks)

    @property
    def spec(self) -> CodecSpec:
        """The spec of the codec of a token dataset."""
        return CodecSpec(**self.codec)

    @property
    def codec_spec(self) -> CodecSpec | ContinuousSpec:
        """The spec of the codec of a dataset of either kind."""
        return ContinuousSpec(**self.codec) if self.latent_dim else self.spec

    @property
    def conditioning_sizes(self) -> dict[str, int]:
        """Number of features by the conditioning's column; empty without conditioning."""
        if self.conditioning is None:
            return {}
        settings = ConditioningSettings(**self.conditioning)
        return {settings.kind: settings.n_features}

    def as_dict(self) -> dict[str, Any]:
        """Return the fields; without those that do not apply to these rows."""
        fields = asdict(self)
        unset = [name for name in _RATES if fields[name] is None]
        unset += _OF_CODES if self.latent_dim else ["latent_dim"]
        return {name: value for name, value in fields.items() if name not in unset}

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
            if content.get("latent_dim"):
                content = {**dict.fromkeys(_OF_CODES, 0), **content}
            provenance = cls(**content)
            provenance._check()
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise ValueError(
                f"{source} has no readable provenance ({_short(error, 200)}), so it is not a token "
                "dataset; make one with `tokgen tokenize`"
            ) from error
        return provenance

    def _check(self) -> None:
        """Raise ValueError or TypeError if a value has another type or contradicts another."""
        texts: list[Any] = [
            self.tokgen_version,
            self.corpus,
            self.corpus_fingerprint,
            self.precision,
            self.distance,
        ]
        for name, kind in (("codec", dict), ("conditioning", dict | None), ("side_names", list)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} = {_short(getattr(self, name))}: of another type")
        of_codec = ("weight_hash", "encoder_hash", "library", "licence")
        texts += [self.codec.get(n, "") for n in of_codec]
        texts += [self.codec.get("name"), self.codec.get("revision") or "", *self.side_names]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name or a hash is not a string")
        for given in (vars(self), self.codec, self.conditioning or {}):
            for name, limit in _LIMITS.items():
                value = given.get(name, limit)
                if type(value) is not int or not value <= limit:
                    raise ValueError(f"{name} = {_short(value)}: must be an integer up to {limit}")
        for name in _RATES:
            value = getattr(self, name)
            if value is not None and type(value) not in (int, float):
                raise ValueError(f"{name} = {_short(value)}: must be a number")
        _ = self.rate  # raises ValueError for values out of range
        spec, sizes = self.codec_spec, self.conditioning_sizes
        of_values = ("latent_dim",) if self.latent_dim else ("codebook_size", "n_codebooks")
        for name in ("beam", "sample_rate", "hop_length", *of_values):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1")
            if name not in ("beam", "n_codebooks") and value != (of_codec := getattr(spec, name)):
                raise ValueError(f"{name} = {value}, but its codec has {of_codec}")
        if isinstance(spec, ContinuousSpec):
            if self.rate is not None or self.side_names or any(getattr(self, n) for n in _OF_CODES):
                raise ValueError("latents have no levels, no rate and no side information")
        elif self.n_codebooks > spec.n_codebooks:
            raise ValueError(f"n_codebooks = {self.n_codebooks}: {spec.n_codebooks} at most")
        if sizes and self.conditioning is not None:
            settings = ConditioningSettings(**self.conditioning)
            for name in ("sample_rate", "hop_length"):
                if getattr(settings, name) != getattr(self, name):
                    raise ValueError(f"{name} of the conditioning is not that of the codec")
            for name in ("f_min", "f_max", "floor"):
                value = getattr(settings, name)
                if value is not None and not (type(value) in (int, float) and abs(value) < 1e9):
                    raise ValueError(f"{name} = {_short(value)}: must be a number")

    def makes_equal_rows(self, other: Provenance) -> bool:
        """Return whether both describe the same rows, ignoring the codec's and corpus' names."""
        return not self.differences(other)

    def differences(self, other: Provenance) -> list[str]:
        """Return what differs in the rows, as "setting: mine → the other's"."""

        def content(p: Provenance) -> dict[str, Any]:
            given: dict[str, Any] = {"kind": "none"}
            if p.conditioning is not None:  # older datasets lack these settings
                given = {"chunk_length": 0, "chunk_stride": 0, "kind": "mfcc", **p.conditioning}
            kind = given.pop("kind")
            settings = {k: v for k, v in p.as_dict().items() if k not in _DESCRIBED}
            return {
                **settings,
                "rate": describe_rate(p.rate),
                "conditioning": kind,
                **{f"{kind} {k}": v for k, v in given.items()},
            }

        found, mine, theirs = [], content(self), content(other)
        specs = self.codec_spec, other.codec_spec
        if not encodes_like(*specs):
            names, hashes = [_short(each.name) for each in specs], show_hashes(*specs)
            if names[0] == names[1]:
                found.append(f"codec {names[0]!r}: {hashes[0]} → {hashes[1]}")
            else:
                found.append(f"codec: {names[0]!r} ({hashes[0]}) → {names[1]!r} ({hashes[1]})")
        if mine["conditioning"] != theirs["conditioning"]:
            kinds = ("conditioning", "tokgen_version")
            mine, theirs = (
                {k: v for k, v in c.items() if k in kinds or " " not in k} for c in (mine, theirs)
            )
        for name in dict.fromkeys([*mine, *theirs]):
            if mine.get(name) != theirs.get(name):
                found.append(f"{name}: {_short(mine.get(name))} → {_short(theirs.get(name))}")
        if self.corpus_fingerprint != other.corpus_fingerprint:
            found.append(CORPUS_CHANGED)
        return found


def provenance_of(
    dataset: Dataset | IterableDataset | DatasetDict, name: str = "the dataset"
) -> Provenance:
    """Return the provenance of a dataset or of one split; `name` is for messages.

    The dataset can come from `load_tokens`, from `datasets.load_dataset` or `load_from_disk`, or be
    made from such a dataset by `select`, `filter`, `map` and the like.

    Raises:
        ValueError: there is no provenance, or that of the splits differs.
    """
    if not isinstance(dataset, dict):
        text = _find_in(dataset.features or {}) or dataset.info.description
        if not text:
            raise ValueError(
                f"{name} has no readable provenance, so it is not a token dataset; make one "
                "with `tokgen tokenize`, or open an old one with `tokgen.load_tokens`"
            )
        return Provenance.from_json(text, name)
    found = {split: provenance_of(part, name) for split, part in dataset.items()}
    if not found:
        raise ValueError(f"{name} has no splits")
    first, provenance = next(iter(found.items()))
    if different := [split for split in found if found[split] != provenance]:
        raise ValueError(
            f"splits {different} have another provenance than {first!r}: "
            "tokenize all of them in one run"
        )
    return provenance


def has_provenance(rows: Dataset) -> bool:
    """Return whether the features of a split have a provenance, readable or not."""
    return _find_in(rows.features or {}) is not None


def add_provenance(features: Features, provenance: Provenance) -> Features:
    """Return features of a token or latent dataset that carry its provenance."""
    features = copy.deepcopy(features)
    _innermost(features[provenance.column]).id = _PREFIX + provenance.to_json()
    return features


def attach_provenance(dataset: Dataset, provenance: Provenance) -> Dataset:
    """Return the same rows, with a provenance in their features; no data is copied."""
    from datasets import Dataset

    info = dataset.info.copy()
    info.features = add_provenance(dataset.features, provenance)
    return Dataset(dataset.data, info=info, split=dataset.split, indices_table=dataset._indices)


def describe_rate(rate: Rate | None) -> str:
    """Return how the levels of each frame are chosen, in words."""
    if rate is None:
        return "all levels"
    return f"level {rate.level:g}" if rate.bitrate is None else f"{rate.bitrate:g} kbps"


def side_column(name: str) -> str:
    """Return the column for a kind of side information."""
    return f"side_{name}"


def _short(value: object, longest: int = 60) -> str:
    """Return a value from a file as text for a message, in one line."""
    try:
        text = " ".join(str(value).split())
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= longest else f"{text[:longest]}…"


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
