"""The codec interface: `Codec`, which encodes audio to codes and decodes codes to audio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.checks import (
    WholeOnly,
    check_codes,
    check_lengths,
    check_levels,
    check_n_samples,
    check_waveform,
)
from tokgen.codec.spec import CodecSpec, Encoded, Side, WaveformSpec
from tokgen.codec.windows import fit_length

if TYPE_CHECKING:
    from tokgen.codec.blocks import BlockDecoder, BlockEncoder


class Codec(ABC):
    """A codec with its weights: waveform [B, 1, N] <-> codes [B, K, T].

    Subclasses implement `_encode` and `_decode`. The codes of an utterance do not depend on the
    rest of its batch: `_encode` gets the true lengths and must honour them.

    Attributes:
        side_names: of the side information that `decode` needs beside the codes.
        whole_because: why an utterance cannot be coded in pieces, where it cannot.
        loaded_from: name and revision that `load_codec` gives the same codec for; None where the
            codec was made otherwise.
    """

    spec: CodecSpec
    model: nn.Module
    side_names: tuple[str, ...] = ()
    whole_because: str = "does not say how far its network sees"
    loaded_from: tuple[str, str | None] | None = None

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
            waveform: [B, 1, N] float in [-1, 1] at `spec.sample_rate` Hz, or
                [B, spec.channels, N].
            n_codebooks: levels to keep; None keeps all K.
            lengths: true samples of each item where the batch is right-padded;
                frames past `spec.n_frames(length)` carry no meaning.
        Returns:
            codes int64 [B, K, T], T = ceil(N / hop_length), values < codebook_size.
        Raises:
            ValueError: wrong channels, empty, not finite, or n_codebooks outside 1..K.
        """
        return self.encode_with_side(waveform, n_codebooks, lengths).codes

    @torch.no_grad()
    def encode_with_side(
        self,
        waveform: Tensor,
        n_codebooks: int | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Encoded:
        """As `encode`, with the side information that `decode` needs."""
        waveform = check_waveform(waveform, self.spec.channels)
        lengths = check_lengths(lengths, waveform)
        keep = check_levels(n_codebooks, self.spec)
        waveform = waveform.expand(-1, self.spec.channels, -1)
        if self.device.type == "cuda" and waveform.device.type == "cpu":
            waveform = waveform.contiguous().pin_memory()  # so that the copy does not wait
        encoded = self._encode(waveform.to(self.device, non_blocking=True), lengths)
        return Encoded(encoded.codes[:, :keep], encoded.side)

    @torch.no_grad()
    def decode(
        self,
        codes: Tensor,
        n_samples: int | None = None,
        side: Side | None = None,
        *,
        mono: bool = True,
    ) -> Tensor:
        """Turn codes back into audio.

        Args:
            codes: int64 [B, k, T] with 1 <= k <= K coarse levels.
            n_samples: length to give back; None gives all that T frames hold.
            side: what `encode_with_side` gave, for a codec that has `side_names`.
            mono: average the channels of a codec that has several.
        Returns:
            waveform float32 [B, 1, N], N = n_samples or T * hop_length; [B, spec.channels, N]
            with `mono=False`.
        Raises:
            ValueError: wrong shape, a code outside the codebook (MASK left in, say), or side
                information missing.
        """
        codes = check_codes(codes, self.spec)
        n_samples = check_n_samples(n_samples, codes.shape[-1], self.spec)
        waveform = self._decode(codes.to(self.device), self.needed_side(side, codes)).float()
        if mono:
            waveform = waveform.mean(1, keepdim=True)
        return fit_length(waveform, n_samples)

    def roundtrip(self, waveform: Tensor, n_codebooks: int | None = None) -> Tensor:
        """decode(encode(waveform)), same shape as the input."""
        encoded = self.encode_with_side(waveform, n_codebooks)
        mono = waveform.shape[1] == 1
        return self.decode(encoded.codes, waveform.shape[-1], encoded.side, mono=mono)

    def encode_batch(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Encode utterances of unequal length in one pass.

        Args:
            waveforms: each [N_i] or [1, N_i].
        Returns:
            codes [K, T_i] of each, the same as from encoding it alone.
        """
        return [e.codes for e in self.encode_batch_with_side(waveforms)]

    def encode_batch_with_side(self, waveforms: Sequence[Tensor]) -> list[Encoded]:
        """As `encode_batch`, with side information [S_i] of each."""
        for w in waveforms:
            if w.ndim > 2 or (w.ndim == 2 and len(w) != 1):
                raise ValueError(f"waveform of shape {tuple(w.shape)}: give [N] or [1, N], mono")
        flat = [w.reshape(-1) for w in waveforms]
        lengths = [len(w) for w in flat]
        batch = torch.stack([F.pad(w, (0, max(lengths) - len(w))) for w in flat])[:, None]
        encoded = self.encode_with_side(batch, lengths=lengths)
        out = []
        for i, n in enumerate(lengths):
            side = {name: values[i, : self.side_length(n)] for name, values in encoded.side.items()}
            out.append(Encoded(encoded.codes[i, :, : self.spec.n_frames(n)], side))
        return out

    def decode_batch(
        self,
        codes: Sequence[Tensor],
        n_samples: Sequence[int],
        sides: Sequence[Side] | None = None,
    ) -> list[Tensor]:
        """Decode utterances of unequal length; those of equal T go through together.

        Args:
            codes: each [K, T_i].
            n_samples: length of each in samples.
            sides: side information [S_i] of each, for a codec that has `side_names`.
        Returns:
            waveforms [1, N_i], in the order given.
        """
        groups: dict[int, list[int]] = {}
        for i, c in enumerate(codes):
            groups.setdefault(c.shape[-1], []).append(i)
        out: list[Tensor] = [torch.empty(0)] * len(codes)
        for members in groups.values():
            side = None
            if sides is not None:
                side = {
                    name: torch.stack([torch.as_tensor(sides[i][name]) for i in members])
                    for name in self.side_names
                }
            batch = torch.stack([codes[i] for i in members])
            decoded = self.decode(batch, side=side).cpu()
            for i, waveform in zip(members, decoded, strict=True):
                out[i] = waveform[:, : n_samples[i]]
        return out

    # -- what a subclass gives -----------------------------------------------

    @abstractmethod
    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        """codes [B, K, spec.n_frames(N)] of waveform [B, channels, N], checked, on the device."""

    @abstractmethod
    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        """waveform [B, channels, about T * hop_length]; inputs are checked and on the device."""

    def side_length(self, n_samples: int) -> int:
        """Values S of each kind of side information for `n_samples` samples."""
        return 0

    def needed_side(self, side: Side | None, codes: Tensor) -> Side:
        """Of `side` what `_decode` needs for codes [B, k, T], on the device.

        Raises:
            ValueError: some of it is missing, or of another shape.
        """
        missing = sorted(set(self.side_names) - set(side or {}))
        if missing:
            raise ValueError(
                f"{self.spec.name} needs side information {missing} beside the codes: pass the "
                "`side` that `encode_with_side` gave"
            )
        found = {name: side[name].to(self.device) for name in self.side_names} if side else {}
        wanted = len(codes), self.side_length(self.spec.n_samples(codes.shape[-1]))
        for name, values in found.items():
            if values.shape != wanted:
                raise ValueError(
                    f"{name} of shape {tuple(values.shape)}: {self.spec.name} needs one per chunk, "
                    f"{wanted}, for codes of shape {tuple(codes.shape)}"
                )
        return found

    # -- audio in pieces (optional) --------------------------------------------

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        """What takes audio and gives codes piece by piece.

        Args:
            step: frames that come together, as soon as they can be known; None takes the
                windows of `_encode`, so that the bits are the same too.
        Raises:
            WholeOnly: as for `stream`.
        """
        raise WholeOnly(self.spec.name, self.whole_because)

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        """What takes codes and gives audio piece by piece; as `block_encoder`."""
        raise WholeOnly(self.spec.name, self.whole_because)

    def code_vectors(self) -> Tensor | None:
        """The codebooks as [K, codebook_size, d], or None where they are not exposed."""
        return None

    # -- housekeeping --------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the folder that `load_codec` and the codec's own library load."""
        self.model.save_pretrained(folder)  # type: ignore[operator]

    def to(self, device: torch.device | str) -> Codec:
        self.model.to(device)
        return self

    def __repr__(self) -> str:
        s = self.spec
        return (
            f"{type(self).__name__}({s.name}: {s.sample_rate} Hz, hop {s.hop_length}, "
            f"{s.n_codebooks} x {s.codebook_size}, {s.bitrate / 1000:.2f} kbps)"
        )


class WaveformCodec(ABC):
    """A codec that gives audio for audio and shows no codes: MP3, Opus."""

    spec: WaveformSpec

    @abstractmethod
    def roundtrip(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, N] at `spec.sample_rate` Hz -> the same shape, without delay.

        Raises:
            ValueError: not mono, empty or not finite.
        """
