"""The interface of autoencoders without a quantizer: `ContinuousCodec`.

codec = load_continuous("speech-16k-continuous")
latents = codec.encode(waveform)                          # [B, D, T]
decoded = codec.decode(latents, waveform.shape[-1])       # [B, 1, N]

`tokgen.quantizers.offline` makes a codec of it: a quantizer that is fitted to its latents.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tokgen.codec.base import WaveformCodec
from tokgen.codec.batches import pad_batch
from tokgen.codec.checks import check_lengths, check_waveform, zero_padding
from tokgen.codec.spec import WaveformSpec, check_sizes, with_encoder_hash
from tokgen.codec.windows import Reach, Windows, fit_length, run_whole

__all__ = ["LATENT_BITS", "ContinuousCodec", "ContinuousSpec"]

LATENT_BITS = 16  # of a latent in a dataset, which is float16


@dataclass(frozen=True)
class ContinuousSpec(WaveformSpec):
    """The numbers of a continuous codec. Those of equal `encoder_hash` make equal latents.

    `bitrate` is that of float16 latents.

    Attributes:
        latent_dim: D, latents per frame.
        weight_hash, revision, licence: as in `CodecSpec`.
        channels, chunk_length, chunk_stride: as in `CodecSpec`; mono, without chunks.
        encoder_hash: as in `CodecSpec`; of the encoder alone.
    """

    chunk_length: ClassVar[int] = 0
    chunk_stride: ClassVar[int] = 0
    latent_dim: int = 0
    weight_hash: str = ""
    revision: str | None = None
    licence: str = ""
    encoder_hash: str = field(default="", compare=False)  # not in older files

    def __post_init__(self) -> None:
        check_sizes(self, "sample_rate", "hop_length", "latent_dim")

    @classmethod
    def of(
        cls, name: str, sample_rate: int, hop_length: int, latent_dim: int, **about: Any
    ) -> ContinuousSpec:
        """Return a spec; `about` are its other fields."""
        bitrate = LATENT_BITS * latent_dim * sample_rate / hop_length
        about = {"library": "tokgen", **about}
        about |= {"hop_length": hop_length, "latent_dim": latent_dim}
        return cls(name, sample_rate, bitrate, **about)

    @property
    def frame_rate(self) -> float:
        """Frames per second, never rounded."""
        assert self.hop_length is not None
        return self.sample_rate / self.hop_length

    def n_frames(self, n_samples: int) -> int:
        """Return T = ceil(N / hop_length)."""
        assert self.hop_length is not None
        return -(-n_samples // self.hop_length)

    def as_dict(self) -> dict:
        """Return the fields, without those of newer versions that say nothing."""
        return with_encoder_hash(asdict(self))


class ContinuousCodec(WaveformCodec):
    """An autoencoder with its weights: waveform [B, 1, N] <-> latents [B, D, T].

    Subclasses implement `encode_latents` and `decode_latents`. The latents of an utterance do not
    depend on the rest of its batch.

    Attributes:
        spec: the codec's numbers.
        model: the network.
        reaches: receptive fields of encoder and decoder in frames, for networks that have finite
            ones; long audio then goes through in windows. None runs whole utterances.
        window_frames: frames per window.
        loaded_from: name and revision for `load_continuous`; None if that did not make it.
    """

    spec: ContinuousSpec
    model: nn.Module
    reaches: tuple[Reach, Reach] | None = None
    window_frames: int = 1000
    loaded_from: tuple[str, str | None] | None = None

    def __init__(self, model: nn.Module, spec: ContinuousSpec) -> None:
        self.model, self.spec = model.eval(), spec

    @abstractmethod
    def encode_latents(self, waveform: Tensor, lengths: list[int] | None = None) -> Tensor:
        """waveform [B, 1, N] -> latents [B, D, T], with gradient.

        Args:
            waveform: see above.
            lengths: true samples of each item, which may be 0; None means N for all. Samples past
                them must be 0.
        """

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """latents [B, D, T] -> waveform [B, 1, T * hop_length], with gradient."""

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Encode audio.

        Args:
            waveform: [B, 1, N] float in [-1, 1] at `spec.sample_rate` Hz.
            lengths: true samples of each item of a right-padded batch. Padding is set to zero.
        Returns:
            latents float32 [B, D, T], T = ceil(N / hop_length).
        Raises:
            TypeError, ValueError: as for `Codec.encode`.
        """
        waveform = check_waveform(waveform)
        lengths = check_lengths(lengths, waveform)
        audio = zero_padding(waveform, lengths).to(self.device)
        if self.reaches is not None:
            return run_whole([self.encoder_windows(lengths=lengths)], audio).float()
        n_frames = self.spec.n_frames(audio.shape[-1])
        items = [self.encode_latents(x[None, :, :n]) for x, n in zip(audio, lengths, strict=True)]
        return torch.cat([fit_length(item.float(), n_frames) for item in items])

    @torch.no_grad()
    def decode(self, latents: Tensor, n_samples: int | None = None) -> Tensor:
        """Decode latents [B, D, T] of any float type to a waveform float32 [B, 1, N].

        Args:
            latents: see above.
            n_samples: length of the result; None means all that T frames hold.
        Raises:
            ValueError: another shape, a value that is not finite, or more samples than T frames.
        """
        latents = self._check_latents(latents).to(self.device)
        full = latents.shape[-1] * (self.spec.hop_length or 1)
        if n_samples is not None and not 0 < n_samples <= full:
            raise ValueError(
                f"n_samples = {n_samples}: {latents.shape[-1]} frames hold 1..{full} samples; pass "
                "the length that was encoded"
            )
        if self.reaches is not None:
            waveform = run_whole([self.decoder_windows()], latents)
        else:
            waveform = self.decode_latents(latents)
        return fit_length(waveform.float(), full if n_samples is None else n_samples)

    def roundtrip(self, waveform: Tensor) -> Tensor:
        return self.decode(self.encode(waveform), waveform.shape[-1])

    def encode_batch(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode utterances [N_i] or [1, N_i]; returns latents [D, T_i] of each."""
        if not waveforms:
            return []
        batch, lengths = pad_batch(waveforms, 1)
        latents = self.encode(batch, lengths)
        pairs = zip(latents, lengths, strict=True)
        return [item[:, : self.spec.n_frames(n)] for item, n in pairs]

    def encoder_windows(
        self,
        step: int | None = None,
        lengths: list[int] | None = None,
        finish: Any = None,
    ) -> Windows:
        """Return a stage from audio to latents, for codecs with `reaches`.

        Args:
            step: as for `Windows`.
            lengths: true samples of each item.
            finish: is called with the latents [B, D, t] of each window; None keeps them.
        """
        assert self.reaches is not None
        hop = self.spec.hop_length or 1

        def run(window: Tensor, first: int) -> Tensor:
            inside, size = None, window.shape[-1]
            if lengths is not None:
                inside = [min(max(0, n - first * hop), size) for n in lengths]
            latents = self.encode_latents(window, inside)
            return latents if finish is None else finish(latents)

        return Windows(run, self.reaches[0], size=self.window_frames, step=step, hop_in=hop)

    def decoder_windows(self, step: int | None = None, start: Any = None) -> Windows:
        """Return a stage from latents to audio; `start` makes latents of what comes in."""
        assert self.reaches is not None

        def run(window: Tensor, first: int) -> Tensor:
            return self.decode_latents(window if start is None else start(window))

        hop = self.spec.hop_length or 1
        return Windows(run, self.reaches[1], size=self.window_frames, step=step, hop_out=hop)

    def _check_latents(self, latents: Tensor) -> Tensor:
        if not isinstance(latents, Tensor) or not latents.is_floating_point():
            found = getattr(latents, "dtype", type(latents).__name__)
            raise TypeError(f"latents are {found}, not a tensor [B, D, T] of floats")
        shape, dim = tuple(latents.shape), self.spec.latent_dim
        if len(shape) != 3 or shape[1] != dim or not shape[2]:
            fix = "; pass latents.mT" if len(shape) == 3 and shape[2] == dim else ""
            fix = "; pass latents[None]" if len(shape) == 2 and shape[0] == dim else fix
            raise ValueError(
                f"latents of shape {shape}: {self.spec.name} takes [B, {dim}, T] of at least 1 "
                f"frame{fix}"
            )
        latents = latents.float()
        if not bool(latents.isfinite().all()):
            raise ValueError("latents hold NaN or infinity: encode the clip again, or drop it")
        return latents

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        self.model.to(device)
        return self

    def __repr__(self) -> str:
        s = self.spec
        return (
            f"{type(self).__name__}({s.name}: {s.sample_rate} Hz, hop {s.hop_length}, "
            f"{s.latent_dim} latents per frame)"
        )
