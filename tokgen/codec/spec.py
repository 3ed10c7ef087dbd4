"""The numbers of a codec: rates, sizes, and the hash of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class CodecSpec:
    """The numbers of a codec. Two codecs with equal `weight_hash` give equal codes.

    Attributes:
        name: what `load_codec` was given, or the folder's name.
        sample_rate: Hz.
        hop_length: samples per frame, exact.
        n_codebooks: levels K, coarse first.
        codebook_size: entries per level; need not be a power of two.
        weight_hash: SHA-256 over names, dtypes, shapes and bytes of the weights (hex).
        revision: hub commit or version, None for a local folder.
        library: who runs it ("tokgen", "transformers", ...).
        licence: of the weights.
        channels: of the network; audio of one channel is copied to all, and averaged after.
        chunk_length: samples that are coded as one, where a network codes overlapping chunks
            (EnCodec at 48 kHz); 0 where it does not.
        chunk_stride: samples from chunk to chunk.
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

    def __post_init__(self) -> None:
        for name in ("sample_rate", "hop_length", "n_codebooks", "codebook_size", "channels"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"CodecSpec.{name} = {value!r}: must be an integer of at least 1")
        if self.chunk_length and not (
            self.chunk_length % self.hop_length == 0 and 0 < self.chunk_stride <= self.chunk_length
        ):
            raise ValueError(
                f"chunks of {self.chunk_length} samples every {self.chunk_stride}: must be whole "
                f"frames of {self.hop_length}, and no stride longer than a chunk"
            )

    @property
    def frame_rate(self) -> float:
        """Frames per second, never rounded; what chunks overlap by counts twice."""
        if self.chunk_length:
            return self.chunk_length / self.hop_length * self.sample_rate / self.chunk_stride
        return self.sample_rate / self.hop_length

    @property
    def bitrate(self) -> float:
        """Bits per second with all levels kept, without entropy coding."""
        return self.frame_rate * self.n_codebooks * math.log2(self.codebook_size)

    def n_chunks(self, n_samples: int) -> int:
        """Chunks that begin within `n_samples` samples, the last one padded to its full length."""
        return -(-n_samples // self.chunk_stride) if self.chunk_length else 1

    def n_frames(self, n_samples: int) -> int:
        """Frames T that `n_samples` samples give: ceil(N / hop_length), or whole chunks."""
        if self.chunk_length:
            return self.n_chunks(n_samples) * (self.chunk_length // self.hop_length)
        return -(-n_samples // self.hop_length)

    def n_samples(self, n_frames: int) -> int:
        """The most samples that `n_frames` frames hold: T * hop_length, or a stride per chunk.

        Raises:
            ValueError: not whole chunks, where the codec has chunks.
        """
        if not self.chunk_length:
            return n_frames * self.hop_length
        size = self.chunk_length // self.hop_length
        chunks, rest = divmod(n_frames, size)
        if rest or not chunks:
            raise ValueError(
                f"{n_frames} frames: {self.name} codes chunks of {size} frames; give whole chunks"
            )
        return chunks * self.chunk_stride

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class WaveformSpec:
    """The numbers of a codec without codes.

    Attributes:
        name: what `load_roundtrip` was given, "opus:12" say.
        sample_rate: Hz.
        bitrate: bits per second that were asked for.
        library: who runs it.
    """

    name: str
    sample_rate: int
    bitrate: float
    library: str

    def as_dict(self) -> dict:
        return asdict(self)


Side = Mapping[str, Tensor]  # name -> float32 [B, S]: what a decoder needs beside the codes


@dataclass(frozen=True)
class Encoded:
    """What encoding gives.

    Attributes:
        codes: int64 [B, K, T].
        side: side information by name; empty for most codecs.
    """

    codes: Tensor
    side: Side = field(default_factory=dict)


@dataclass
class Quantized:
    """What quantizing gave. `quantized` carries the straight-through gradient."""

    quantized: Tensor  # [B, D, T]
    codes: Tensor  # int64 [B, K, T]
    projected_latents: Tensor  # [B, K*d, T]
    commitment_loss: Tensor  # scalar
    codebook_loss: Tensor  # scalar
