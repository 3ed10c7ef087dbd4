"""What a codec is: `CodecSpec` (its numbers) and `Codec` (its verbs).

A codec is a chain of stages, named as in the Code Drift paper (eq. 1):

    x' = decode_latents . dequantize . quantize . encode_latents (x)
              f_d        f_dp . f_dq    f_q . f_p       f_e

`encode` and `decode` are all most users need; the stages are for tuning.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    def __post_init__(self) -> None:
        for field in ("sample_rate", "hop_length", "n_codebooks", "codebook_size"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"CodecSpec.{field} = {value!r}: must be an integer of at least 1")

    @property
    def frame_rate(self) -> float:
        """Frames per second, never rounded."""
        return self.sample_rate / self.hop_length

    @property
    def bitrate(self) -> float:
        """Bits per second with all levels kept, without entropy coding."""
        return self.frame_rate * self.n_codebooks * math.log2(self.codebook_size)

    def n_frames(self, n_samples: int) -> int:
        """Frames T that `n_samples` samples give: ceil(N / hop_length)."""
        return -(-n_samples // self.hop_length)

    def as_dict(self) -> dict:
        return asdict(self)


class Codec(ABC):
    """A codec with its weights: waveform [B, 1, N] <-> codes [B, K, T].

    Subclasses give `_encode` and `_decode` and, where the library lets them,
    the stages. Codes of an utterance do not depend on what it is batched with:
    `_encode` gets the true lengths and must honour them.
    """

    spec: CodecSpec
    model: nn.Module

    # -- verbs ---------------------------------------------------------------

    @torch.no_grad()
    def encode(
        self,
        waveform: Tensor,
        n_codebooks: int | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Quantize audio, coarse level first.

        Args:
            waveform: [B, 1, N] float in [-1, 1] at `spec.sample_rate` Hz.
            n_codebooks: levels to keep; None keeps all K.
            lengths: true samples of each item where the batch is right-padded;
                frames past ceil(length / hop_length) carry no meaning.
        Returns:
            codes int64 [B, K, T], T = ceil(N / hop_length), values < codebook_size.
        Raises:
            ValueError: not mono, empty, not finite, or n_codebooks outside 1..K.
        """
        waveform = check_waveform(waveform)
        lengths = check_lengths(lengths, waveform)
        keep = self.spec.n_codebooks if n_codebooks is None else n_codebooks
        if not 1 <= keep <= self.spec.n_codebooks:
            raise ValueError(
                f"n_codebooks = {keep}: {self.spec.name} has levels 1..{self.spec.n_codebooks}; "
                "pass None to keep all"
            )
        codes = self._encode(waveform.to(self.device), lengths)
        return codes[:, :keep]

    @torch.no_grad()
    def decode(self, codes: Tensor, n_samples: int | None = None) -> Tensor:
        """Turn codes back into audio.

        Args:
            codes: int64 [B, k, T] with 1 <= k <= K coarse levels.
            n_samples: length to give back; None gives T * hop_length.
        Returns:
            waveform float32 [B, 1, N], N = n_samples or T * hop_length.
        Raises:
            ValueError: wrong shape, a code outside the codebook (MASK left in, say).
        """
        codes = self._check_codes(codes)
        full = codes.shape[-1] * self.spec.hop_length
        if n_samples is not None and not 0 < n_samples <= full:
            raise ValueError(
                f"n_samples = {n_samples}: {codes.shape[-1]} frames hold 1..{full} samples; "
                "pass the length that was encoded"
            )
        waveform = self._decode(codes.to(self.device)).float()
        return fit_length(waveform, n_samples or full)

    def roundtrip(self, waveform: Tensor, n_codebooks: int | None = None) -> Tensor:
        """decode(encode(waveform)), same shape as the input."""
        return self.decode(self.encode(waveform, n_codebooks), waveform.shape[-1])

    def encode_batch(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode utterances of unequal length in one pass.

        Args:
            waveforms: each [N_i] or [1, N_i].
        Returns:
            codes [K, T_i] of each, the same as from encoding it alone.
        """
        flat = [w.reshape(-1) for w in waveforms]
        lengths = [len(w) for w in flat]
        batch = torch.stack([F.pad(w, (0, max(lengths) - len(w))) for w in flat])[:, None]
        codes = self.encode(batch, lengths=lengths)
        return [c[:, : self.spec.n_frames(n)] for c, n in zip(codes, lengths, strict=True)]

    def decode_batch(self, codes: Sequence[Tensor], n_samples: Sequence[int]) -> list[Tensor]:
        """Decode utterances of unequal length; those of equal T go through together.

        Args:
            codes: each [K, T_i].
            n_samples: length of each in samples.
        Returns:
            waveforms [1, N_i], in the order given.
        """
        groups: dict[int, list[int]] = {}
        for i, c in enumerate(codes):
            groups.setdefault(c.shape[-1], []).append(i)
        out: list[Tensor] = [torch.empty(0)] * len(codes)
        for members in groups.values():
            decoded = self.decode(torch.stack([codes[i] for i in members])).cpu()
            for i, waveform in zip(members, decoded, strict=True):
                out[i] = waveform[:, : n_samples[i]]
        return out

    # -- what a subclass gives -----------------------------------------------

    @abstractmethod
    def _encode(self, waveform: Tensor, lengths: list[int]) -> Tensor:
        """codes [B, K, ceil(N / hop_length)]; inputs are checked and on the device."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """waveform [B, 1, about T * hop_length]; inputs are checked and on the device."""

    # -- stages (optional; differentiable) -----------------------------------

    def encode_latents(self, waveform: Tensor) -> Tensor:
        """f_e: waveform [B, 1, N] -> latents [B, D, T]."""
        raise UnsupportedStage(self, "encode_latents")

    def project(self, latents: Tensor) -> Tensor:
        """f_p: latents [B, D, T] -> projected_latents [B, K*d, T], level after level.

        In a residual quantizer level k projects what levels before k left over.
        """
        raise UnsupportedStage(self, "project")

    def quantize(self, latents: Tensor) -> Tensor:
        """f_q . f_p: latents [B, D, T] -> codes [B, K, T]."""
        raise UnsupportedStage(self, "quantize")

    def codebook_rows(self, codes: Tensor) -> Tensor:
        """f_dq: codes [B, K, T] -> the chosen codebook rows [B, K*d, T]."""
        raise UnsupportedStage(self, "codebook_rows")

    def dequantize(self, codes: Tensor) -> Tensor:
        """f_dp . f_dq: codes [B, k, T] -> quantized [B, D, T]."""
        raise UnsupportedStage(self, "dequantize")

    def decode_latents(self, quantized: Tensor) -> Tensor:
        """f_d: quantized [B, D, T] -> waveform [B, 1, T * hop_length]."""
        raise UnsupportedStage(self, "decode_latents")

    def code_vectors(self) -> Tensor | None:
        """The codebooks as [K, codebook_size, d], or None where they are not exposed."""
        return None

    # -- housekeeping --------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Codec:
        self.model.to(device)
        return self

    def _check_codes(self, codes: Tensor) -> Tensor:
        spec = self.spec
        if codes.ndim != 3 or codes.is_floating_point():
            raise ValueError(
                f"codes of shape {tuple(codes.shape)} {codes.dtype}: expected integers [B, K, T]"
            )
        if not 1 <= codes.shape[1] <= spec.n_codebooks or codes.shape[2] < 1:
            raise ValueError(
                f"codes of shape {tuple(codes.shape)}: {spec.name} takes "
                f"1..{spec.n_codebooks} levels and at least 1 frame"
            )
        codes = codes.long()
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= spec.codebook_size:
            raise ValueError(
                f"codes span {low}..{high}: {spec.name} has entries 0..{spec.codebook_size - 1}; "
                "a MASK token left in, or codes of another codec?"
            )
        return codes

    def __repr__(self) -> str:
        s = self.spec
        return (
            f"{type(self).__name__}({s.name}: {s.sample_rate} Hz, hop {s.hop_length}, "
            f"{s.n_codebooks} x {s.codebook_size}, {s.bitrate / 1000:.2f} kbps)"
        )


class UnsupportedStage(ValueError):
    """A codec does not expose the stage that was asked for."""

    def __init__(self, codec: Codec, stage: str) -> None:
        super().__init__(
            f"{codec.spec.name} does not expose its stage {stage!r}: tuning needs a codec whose "
            "stages are open (tokgen's STFT codec, DAC); use encode and decode with this one"
        )


def check_waveform(waveform: Tensor) -> Tensor:
    """Return `waveform` [B, 1, N] as float32, or raise ValueError saying what is wrong."""
    if waveform.ndim != 3 or waveform.shape[1] != 1:
        raise ValueError(
            f"waveform of shape {tuple(waveform.shape)}: expected mono [B, 1, N]; "
            "mix channels down first (tokgen.audio.read_audio does)"
        )
    if waveform.shape[-1] == 0:
        raise ValueError("waveform of 0 samples: nothing to encode")
    waveform = waveform.float()
    if not torch.isfinite(waveform).all():
        raise ValueError("waveform holds NaN or infinity: repair or drop the clip")
    return waveform


def check_lengths(lengths: Sequence[int] | None, waveform: Tensor) -> list[int]:
    """True lengths of a right-padded batch, one in 1..N per item."""
    n = waveform.shape[-1]
    if lengths is None:
        return [n] * waveform.shape[0]
    lengths = [int(x) for x in lengths]
    if len(lengths) != waveform.shape[0] or not all(1 <= x <= n for x in lengths):
        raise ValueError(f"lengths {lengths}: expected {waveform.shape[0]} values in 1..{n}")
    return lengths


def fit_length(waveform: Tensor, n_samples: int) -> Tensor:
    """Cut or zero-pad the end of [..., N] to `n_samples`."""
    return F.pad(waveform, (0, n_samples - waveform.shape[-1]))


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over every tensor of the state dict: name, dtype, shape, bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def folder_name(path: str | Path) -> str:
    """The codec's name where it is loaded from a folder."""
    return Path(path).resolve().name
