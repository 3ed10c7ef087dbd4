"""A codec's numbers, and the results of encoding and quantizing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = [
    "DEPTH",
    "DISTANCES",
    "IMPORTANCE",
    "MAX_BEAM",
    "MAX_SAMPLE_RATE",
    "CodecSpec",
    "Encoded",
    "Quantized",
    "Search",
    "Side",
    "WaveformSpec",
    "check_sizes",
    "join",
    "with_encoder_hash",
]

MAX_SAMPLE_RATE = 768_000  # the highest rate of audio converters
MAX_BEAM = 1024  # paths of a beam search
# Names of side information
DEPTH = "depth"  # levels of each frame of a variable bitrate
IMPORTANCE = "importance"  # what the depth is chosen by; not part of a stream
DISTANCES = ("projected", "latent")  # that a beam search minimises, see tokgen.quantizers.beam


@dataclass(frozen=True)
class CodecSpec:
    """The numbers of a codec. Codecs with equal `encoder_hash` produce equal codes.

    Attributes:
        name: name passed to `load_codec`, or the folder's name.
        sample_rate: Hz.
        hop_length: samples per frame, exact.
        n_codebooks: number of levels K, coarse first.
        codebook_size: entries per level; need not be a power of two. The most, if levels differ.
        weight_hash: SHA-256 over names, dtypes, shapes and bytes of the weights (hex).
        revision: hub commit or version; None for a local folder.
        library: library that runs the network ("tokgen", "transformers", ...).
        licence: licence of the weights.
        channels: channels of the network; mono input is copied to all of them.
        chunk_length: samples per chunk if the network codes overlapping chunks (EnCodec at
            48 kHz), else 0.
        chunk_stride: samples from the start of one chunk to the next.
        latency_samples: algorithmic latency of a causal codec: coding takes until sample
            s + latency_samples - 1 to give sample s of the result. 0 means that it is not causal.
        level_sizes: entries of each level, if they differ (DualCodec); else empty. See `sizes`.
        encoder_hash: the same over the weights that codes depend on, of encoder and quantizer. It
            equals `weight_hash` if they cannot be told from the decoder's, and is "" if it is not
            known. See `tokgen.codec.identity`.
    """

    name: str
    sample_rate: int
    hop_length: int
    n_codebooks: int
    codebook_size: int
    weight_hash: str = ""
    revision: str | None = None
    library: str = "tokgen"
    licence: str = ""
    channels: int = 1
    chunk_length: int = 0
    chunk_stride: int = 0
    latency_samples: int = field(default=0, compare=False)  # not in older files
    level_sizes: tuple[int, ...] = ()  # not in older files
    encoder_hash: str = field(default="", compare=False)  # not in older files

    def __post_init__(self) -> None:
        for name in ("name", "weight_hash", "encoder_hash", "library", "licence", "revision"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name != "revision"):
                raise ValueError(f"CodecSpec.{name} = {value!r}: must be a string")
        for name in ("chunk_length", "chunk_stride", "latency_samples"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"CodecSpec.{name} = {value!r}: must be an integer of at least 0")
        sizes = "hop_length", "n_codebooks", "codebook_size", "channels"
        check_sizes(self, "sample_rate", *sizes)
        self._check_level_sizes()
        if self.chunk_length and not (
            self.chunk_length % self.hop_length == 0 and 0 < self.chunk_stride <= self.chunk_length
        ):
            raise ValueError(
                f"chunks of {self.chunk_length} samples every {self.chunk_stride}: the length must "
                f"be a multiple of hop_length {self.hop_length}, the stride 1..{self.chunk_length}"
            )

    def _check_level_sizes(self) -> None:
        found = self.level_sizes
        if not isinstance(found, (list, tuple)) or not all(type(size) is int for size in found):
            raise ValueError(f"CodecSpec.level_sizes = {found!r}: must be a list of integers")
        object.__setattr__(self, "level_sizes", tuple(found))  # JSON has lists
        if found and (len(found) != self.n_codebooks or max(found) != self.codebook_size):
            raise ValueError(
                f"CodecSpec.level_sizes = {list(found)}: must be {self.n_codebooks} sizes, the "
                f"largest of them codebook_size = {self.codebook_size}"
            )
        if found and min(found) < 1:
            raise ValueError(f"CodecSpec.level_sizes = {list(found)}: each must be at least 1")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each level."""
        return self.level_sizes or (self.codebook_size,) * self.n_codebooks

    @property
    def frame_rate(self) -> float:
        """Frames per second, never rounded. Frames of overlapping chunks all count."""
        if self.chunk_length:
            return self.chunk_length / self.hop_length * self.sample_rate / self.chunk_stride
        return self.sample_rate / self.hop_length

    @property
    def bitrate(self) -> float:
        """Bits per second with all levels, without entropy coding."""
        if not self.level_sizes:
            return self.frame_rate * self.n_codebooks * math.log2(self.codebook_size)
        return self.frame_rate * sum(map(math.log2, self.level_sizes))

    @property
    def latency_ms(self) -> float | None:
        """Algorithmic latency in milliseconds; None if the codec is not causal."""
        return 1000 * self.latency_samples / self.sample_rate if self.latency_samples else None

    def n_chunks(self, n_samples: int) -> int:
        """Return the number of chunks for `n_samples` samples; the last one is padded."""
        return -(-n_samples // self.chunk_stride) if self.chunk_length else 1

    def n_frames(self, n_samples: int) -> int:
        """Return T for `n_samples` samples: ceil(N / hop_length), or whole chunks."""
        if self.chunk_length:
            return self.n_chunks(n_samples) * (self.chunk_length // self.hop_length)
        return -(-n_samples // self.hop_length)

    def n_samples(self, n_frames: int) -> int:
        """Return the most samples that T frames hold: T * hop_length, or a stride per chunk.

        Raises:
            ValueError: the codec has chunks and `n_frames` is not a whole number of them.
        """
        if not self.chunk_length:
            return n_frames * self.hop_length
        size = self.chunk_length // self.hop_length
        chunks, rest = divmod(n_frames, size)
        if rest or not chunks:
            raise ValueError(
                f"{n_frames} frames: {self.name} codes chunks of {size} frames; pass whole chunks"
            )
        return chunks * self.chunk_stride

    def as_dict(self) -> dict:
        """Return the fields, without those of newer versions that say nothing."""
        fields = with_encoder_hash(asdict(self))
        if not self.latency_samples:
            del fields["latency_samples"]
        if self.level_sizes:
            fields["level_sizes"] = list(self.level_sizes)
        else:
            del fields["level_sizes"]
        return fields


def with_encoder_hash(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec, without `encoder_hash` if `weight_hash` says the same."""
    if fields["encoder_hash"] in ("", fields["weight_hash"]):
        del fields["encoder_hash"]
    return fields


def check_sizes(spec: CodecSpec | WaveformSpec, *names: str) -> None:
    """Check that fields are integers of at least 1, and the sample rate one of audio."""
    kind = type(spec).__name__
    for name in names:
        value = getattr(spec, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{kind}.{name} = {value!r}: must be an integer of at least 1")
    if spec.sample_rate > MAX_SAMPLE_RATE:
        raise ValueError(
            f"{kind}.sample_rate = {spec.sample_rate}: must be at most {MAX_SAMPLE_RATE} Hz"
        )


@dataclass(frozen=True)
class WaveformSpec:
    """The numbers of a codec without codes."""

    channels: ClassVar[int] = 1
    name: str  # as passed to `load_roundtrip`, such as "opus:12"
    sample_rate: int  # Hz
    bitrate: float  # requested bits per second
    library: str  # that runs the codec
    hop_length: int | None = None  # samples per frame, if they are known

    def as_dict(self) -> dict:
        return asdict(self)


Side = Mapping[str, Tensor]  # side information by name, float32 [B, S] each


@dataclass(frozen=True)
class Encoded:
    """The result of encoding."""

    codes: Tensor  # int64 [B, K, T]; 0 past the depth, if there is one
    side: Side = field(default_factory=dict)  # needed for decoding; empty for most codecs

    @property
    def depth(self) -> Tensor | None:
        """The levels of each frame, int64 [B, T]; None if all frames have all levels."""
        return self.side[DEPTH].long() if DEPTH in self.side else None


def join(pieces: Sequence[Encoded]) -> Encoded:
    """Concatenate results along time."""
    side = {
        name: torch.cat([piece.side[name] for piece in pieces], dim=-1) for name in pieces[0].side
    }
    return Encoded(torch.cat([piece.codes for piece in pieces], dim=-1), side)


@dataclass(frozen=True)
class Search:
    """A beam search over the levels of a residual quantizer, in place of greedy choices.

    Attributes:
        beam: paths that are kept after every level, 2..`MAX_BEAM`.
        distance: one of `DISTANCES`.
        n_codebooks: levels to search; None means all.
    """

    beam: int
    distance: str
    n_codebooks: int | None = None

    def __post_init__(self) -> None:
        if not 1 < self.beam <= MAX_BEAM:
            raise ValueError(f"beam = {self.beam}: must be 1 (greedy) to {MAX_BEAM}")
        if self.distance not in DISTANCES:
            raise ValueError(f"distance {self.distance!r} is unknown; use {', '.join(DISTANCES)}")


@dataclass
class Quantized:
    """The result of quantizing latents in training."""

    quantized: Tensor  # [B, D, T], with the straight-through gradient
    codes: Tensor  # int64 [B, K, T]
    projected_latents: Tensor  # [B, K*d, T]
    commitment_loss: Tensor  # scalar, mean squared error summed over levels
    codebook_loss: Tensor  # the same, with the gradient to the codebooks
