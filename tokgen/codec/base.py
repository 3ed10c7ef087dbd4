"""The codec interface: `Codec` encodes audio to codes and decodes codes to audio."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, cast, overload

import torch
from torch import Tensor, nn

from tokgen.codec.aligned import GridChoice, drop_leads, encode_aligned, leads_in
from tokgen.codec.batches import check_side, decode_batch, encode_batch
from tokgen.codec.checks import (
    check_codes,
    check_lengths,
    check_levels,
    check_n_samples,
    check_waveform,
    zero_padding,
)
from tokgen.codec.depth import allocate, refuse_depth
from tokgen.codec.piecewise import PiecewiseCodec
from tokgen.codec.spec import CodecSpec, Encoded, Search, Side, WaveformSpec
from tokgen.codec.stable.decoding import Searchable, check_searchable, decode_stable
from tokgen.codec.stable.settings import StableAudio, StableDecoding
from tokgen.codec.variable import VariableCodec
from tokgen.codec.windows import fit_length

__all__ = ["Codec", "WaveformCodec"]


class Codec(VariableCodec, PiecewiseCodec, ABC):
    """A codec with its weights: waveform [B, 1, N] <-> codes [B, K, T].

    Subclasses implement `_encode` and `_decode`. The codes of an utterance do not depend on the
    rest of its batch.

    Attributes:
        spec: the codec's numbers.
        model: the network.
        side_names: names of the side information that `decode` needs besides the codes.
        loaded_from: name and revision for `load_codec`; None if `load_codec` did not make it.
        search: beam search of the quantizer, see `with_beam`; None is greedy.
    """

    model: nn.Module
    side_names: tuple[str, ...] = ()
    loaded_from: tuple[str, str | None] | None = None
    search: Search | None = None

    def __init__(self, model: nn.Module, spec: CodecSpec) -> None:
        self.model, self.spec = model, spec

    def encode(
        self,
        waveform: Tensor,
        n_codebooks: int | None = None,
        lengths: Sequence[int] | None = None,
        *,
        beam: int | None = None,
        grid: GridChoice = None,
        level: float | None = None,
        bitrate: float | None = None,
    ) -> Tensor:
        """Quantize audio, coarse level first.

        Args:
            waveform: [B, 1, N] or [B, spec.channels, N] float in [-1, 1] at `spec.sample_rate` Hz.
                Floats of any width are converted to float32. A peak above 10 warns.
            n_codebooks: levels to keep; None keeps all K.
            lengths: true samples of each item of a right-padded batch. Padding is set to zero.
                Ignore the frames past `spec.n_frames(length)`.
            beam: paths of a beam search, as in `with_beam`; 1 is greedy. None leaves it as it is,
                which is greedy unless `with_beam` made this codec or it was saved with a beam.
            grid: sample in which the first whole frame begins, 0..hop_length - 1; "auto" finds it
                for each item, see `tokgen.codec.grid`. None begins with the first sample.
            level, bitrate: how a codec of variable bitrate chooses the levels of each frame, as in
                `with_rate`. None leaves it as it is, which is all levels unless `with_rate` made
                this codec.
        Returns:
            codes int64 [B, K, T], T = ceil(N / hop_length), values < codebook_size. With a grid,
            the samples before it become a frame of their own; `decode` needs the side information
            of `encode_with_side` to put every sample back in its place. With a variable bitrate,
            codes past the depth of a frame are 0, and `decode` needs the depth.
        Raises:
            TypeError: integers, or not a tensor.
            ValueError: wrong channels, empty, not finite, a peak above 1000, n_codebooks outside
                1..K, a beam for a codec without beam search, a grid that is none, or a variable
                bitrate for a codec without one, or out of its range.
        """
        options: dict[str, Any] = {"beam": beam, "grid": grid, "level": level, "bitrate": bitrate}
        return self.encode_with_side(waveform, n_codebooks, lengths, **options).codes

    @torch.no_grad()
    def encode_with_side(
        self,
        waveform: Tensor,
        n_codebooks: int | None = None,
        lengths: Sequence[int] | None = None,
        *,
        beam: int | None = None,
        grid: GridChoice = None,
        level: float | None = None,
        bitrate: float | None = None,
    ) -> Encoded:
        """Encode as `encode` does, and return the side information that `decode` needs too.

        With a grid, it includes `lead`, the zeros put before each item: float32 [B, 1]. With a
        variable bitrate, it includes `depth`, the levels of each frame: float32 [B, T], 0 past the
        end of an item; `Encoded.depth` has them as integers.
        """
        if level is not None or bitrate is not None:
            rated = self.with_rate(level=level, bitrate=bitrate)
            return rated.encode_with_side(waveform, n_codebooks, lengths, beam=beam, grid=grid)
        waveform = check_waveform(waveform, self.spec.channels)
        lengths = check_lengths(lengths, waveform)
        if grid is not None:
            return encode_aligned(self, waveform, lengths, grid, n_codebooks, beam)
        waveform = zero_padding(waveform, lengths)
        keep = check_levels(n_codebooks, self.spec)
        coder = self if beam is None else self.with_beam(beam)
        if n_codebooks is not None:
            coder = coder.for_levels(keep)
        elif coder.search is not None:
            keep = coder.search.n_codebooks or keep
        if coder.rate is not None:
            keep = min(keep, coder.rate.n_codebooks or keep)
        waveform = waveform.expand(-1, self.spec.channels, -1)
        if self.device.type == "cuda" and waveform.device.type == "cpu":
            waveform = waveform.contiguous().pin_memory()  # for an asynchronous copy
        audio = waveform.to(self.device, non_blocking=True)
        if coder.rate is None:
            encoded = coder._encode(audio, lengths)
        else:
            found = coder._encode_with_importance(audio, lengths)
            encoded = allocate(found, coder.rate, self.spec, self._frames_of(lengths))
        return Encoded(encoded.codes[:, :keep], encoded.side)

    @overload
    def decode(
        self,
        codes: Tensor,
        n_samples: int | None = None,
        side: Side | None = None,
        *,
        mono: bool = True,
        stable: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def decode(
        self,
        codes: Tensor,
        n_samples: int | None = None,
        side: Side | None = None,
        *,
        mono: bool = True,
        stable: Literal[True] | StableDecoding,
    ) -> StableAudio: ...

    @torch.no_grad()
    def decode(
        self,
        codes: Tensor,
        n_samples: int | None = None,
        side: Side | None = None,
        *,
        mono: bool = True,
        stable: bool | StableDecoding = False,
    ) -> Tensor | StableAudio:
        """Decode codes to audio.

        Args:
            codes: int64 [B, k, T] with 1 <= k <= K coarse levels.
            n_samples: length of the result; None means all that T frames hold.
            side: side information from `encode_with_side`; required if the codec has `side_names`
                or the codes were encoded on a grid or with a variable bitrate.
            mono: average the channels of the network.
            stable: change the audio a little, so that encoding it gives the same codes again.
                True uses the settings that `StableDecoding` starts with.
        Returns:
            waveform float32 [B, 1, N], N = n_samples or T * hop_length; [B, spec.channels, N]
            with `mono=False`. With `stable`, (waveform, reached), as `StableAudio`.
        Raises:
            TypeError: not a tensor.
            ValueError: wrong shape, code outside the codebook, missing side information, or
                `stable` for a codec without an encoder gradient or residual codebooks, or for
                codes of variable depth.
        """
        codes = check_codes(codes, self.spec)
        if stable is not False:
            refuse_depth(side)
        leads = leads_in(side, len(codes), self.spec)
        lead = max(leads)
        n_samples = check_n_samples(n_samples, codes.shape[-1], self.spec, lead) + lead
        waveform = self._decode(codes.to(self.device), self.check_side(side, codes)).float()
        if mono:
            waveform = waveform.mean(1, keepdim=True)
        waveform = fit_length(waveform, n_samples)
        if stable is False:
            return drop_leads(waveform, leads)
        settings = StableDecoding() if stable is True else stable
        check_searchable(self)
        with torch.enable_grad():
            found = decode_stable(cast(Searchable, self), codes.to(self.device), waveform, settings)
        return found._replace(waveform=drop_leads(found.waveform, leads))

    def roundtrip(self, waveform: Tensor, n_codebooks: int | None = None) -> Tensor:
        """Return decode(encode(waveform)), of the same shape as the input."""
        encoded = self.encode_with_side(waveform, n_codebooks)
        mono = waveform.shape[1] == 1
        return self.decode(encoded.codes, waveform.shape[-1], encoded.side, mono=mono)

    def excerpt_roundtrip(self, waveform: Tensor) -> Tensor:
        """Return the round trip of a batch of short excerpts, [B, 1, N], for `find_grid`.

        It may round otherwise than `roundtrip`, and depend on the batch so far, if that is faster.
        """
        return self.roundtrip(waveform)

    def with_beam(self, beam: int, distance: str | None = None) -> Self:
        """Return this codec, with the same weights, with a beam search in its quantizer.

        Args:
            beam: paths that are kept after every level; 1 is greedy.
            distance: what the search minimises, one of `tokgen.codec.spec.DISTANCES`. None keeps
                the codec's choice, at first the one that suits its quantizer.
        Raises:
            ValueError: the codec has no beam search, or a value is out of range.
        """
        codec, levels = copy.copy(self), self.search_levels()
        if beam == 1:
            codec.search = None
            return codec
        if levels is None:
            raise ValueError(
                f"beam = {beam}: {self.spec.name} has no beam search; use beam = 1, or tokgen's "
                "STFT codec, DAC, EnCodec, X-Codec or SpeechTokenizer"
            )
        kept = levels[0].distance if self.search is None else self.search.distance
        codec.search = Search(beam, distance or kept)
        return codec

    def for_levels(self, n_codebooks: int) -> Self:
        """Return this codec with its beam search and variable bitrate over some coarse levels."""
        codec = self
        if self.search is not None and self.search.n_codebooks != n_codebooks:
            codec = copy.copy(codec)
            codec.search = replace(self.search, n_codebooks=n_codebooks)
        if self.rate is not None and self.rate.n_codebooks != n_codebooks:
            codec = copy.copy(codec)
            codec.rate = replace(self.rate, n_codebooks=n_codebooks)
        return codec

    def search_levels(self) -> Sequence[Any] | None:
        """Return a `tokgen.quantizers.beam.Level` per level, or None without beam search."""
        return None

    def encode_batch(self, waveforms: Sequence[Tensor], *, grid: GridChoice = None) -> list[Tensor]:
        """Encode utterances of unequal length.

        Args:
            waveforms: each [N_i], [1, N_i] or [spec.channels, N_i].
            grid: as for `encode`.
        Returns:
            codes [K, T_i] of each, equal to those of the utterance alone.
        """
        return [e.codes for e in self.encode_batch_with_side(waveforms, grid=grid)]

    def encode_batch_with_side(
        self, waveforms: Sequence[Tensor], *, grid: GridChoice = None
    ) -> list[Encoded]:
        """Encode as `encode_batch` does, with side information [S_i] of each utterance."""
        return encode_batch(self, waveforms, grid)

    def decode_batch(
        self,
        codes: Sequence[Tensor],
        n_samples: Sequence[int],
        sides: Sequence[Side] | None = None,
    ) -> list[Tensor]:
        """Decode utterances of unequal length. Those of equal shape are decoded as a batch.

        Args:
            codes: each [k_i, T_i].
            n_samples: samples of each.
            sides: side information [S_i] of each; required if the codec has `side_names`.
        Returns:
            waveforms [1, N_i] in the same order.
        """
        return decode_batch(self, codes, n_samples, sides)

    @abstractmethod
    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        """Encode a checked batch [B, spec.channels, N] on the codec's device.

        Args:
            lengths: true samples of each item; samples past them must not change its codes.
        Returns:
            codes [B, K, spec.n_frames(N)].
        """

    @abstractmethod
    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        """Decode checked codes to a waveform [B, spec.channels, about T * hop_length]."""

    def side_length(self, name: str, n_samples: int) -> int:
        """Return the number of values S of side information of this name for some samples."""
        return self.spec.n_frames(n_samples)

    def check_side(self, side: Side | None, codes: Tensor) -> Side:
        """Return the side information that `_decode` needs for codes [B, k, T], on the device.

        Raises:
            ValueError: some is missing or has a wrong shape.
        """
        return check_side(self, side, codes)

    def code_vectors(self) -> Tensor | None:
        """Return the codebooks [K, codebook_size, d], or None if they are not exposed."""
        return None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def save_pretrained(self, folder: str | Path) -> None:
        """Save a folder that `load_codec` and the codec's own library can load."""
        self.model.save_pretrained(folder)  # type: ignore[operator]

    def to(self, device: torch.device | str) -> Codec:
        self.model.to(device)
        return self

    def __repr__(self) -> str:
        s, kbps = self.spec, f"{self.spec.bitrate / 1000:.2f} kbps"
        if self.rate is not None:
            level, mean = self.rate.level, self.rate.bitrate
            kbps = f"level {level:g}" if mean is None else f"{mean:g} kbps on average"
        return (
            f"{type(self).__name__}({s.name}: {s.sample_rate} Hz, hop {s.hop_length}, "
            f"{s.n_codebooks} x {s.codebook_size}, {kbps})"
        )


class WaveformCodec(ABC):
    """A codec without codes, such as MP3 or Opus: it only has `roundtrip`."""

    spec: WaveformSpec

    @abstractmethod
    def roundtrip(self, waveform: Tensor) -> Tensor:
        """Encode and decode audio [B, 1, N] at `spec.sample_rate` Hz, without delay.

        Raises:
            ValueError: not mono, empty or not finite.
        """
