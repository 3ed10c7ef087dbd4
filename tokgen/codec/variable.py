"""Choose how many levels each frame keeps: the methods of `Codec` for a variable bitrate."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from tokgen.codec.checks import check_lengths, check_levels, check_waveform, zero_padding
from tokgen.codec.depth import Rate, allocate, check_reach
from tokgen.codec.spec import DEPTH, CodecSpec, Encoded

__all__ = ["VariableCodec"]


class VariableCodec:
    """The part of `Codec` that gives frames different numbers of levels.

    Attributes:
        rate: how the depth of frames is chosen, see `with_rate`; None gives all frames all levels.
    """

    spec: CodecSpec
    side_names: tuple[str, ...] = ()
    rate: Rate | None = None

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the network."""

    @torch.no_grad()
    def encode_with_importance(
        self, waveform: Tensor, lengths: Sequence[int] | None = None
    ) -> Encoded:
        """Encode once for all bitrates of a codec of variable bitrate.

            encoded = codec.encode_with_importance(waveform)
            half = codec.allocate(encoded, level=0.5)  # equals encode_with_side(..., level=0.5)

        Args:
            waveform, lengths: as for `encode`.
        Returns:
            codes int64 [B, K, T] of all levels, and side information with `importance`, float32
            [B, T] in (0, 1).
        Raises:
            ValueError: as `encode`, or the codec has one bitrate.
        """
        self._check_variable("importance")
        waveform = check_waveform(waveform, self.spec.channels)
        lengths = check_lengths(lengths, waveform)
        waveform = zero_padding(waveform, lengths).expand(-1, self.spec.channels, -1)
        return self._encode_with_importance(waveform.to(self.device), lengths)

    def allocate(
        self,
        encoded: Encoded,
        lengths: Sequence[int] | None = None,
        *,
        level: float | None = None,
        bitrate: float | None = None,
        n_codebooks: int | None = None,
    ) -> Encoded:
        """Choose the levels of each frame of what `encode_with_importance` returned.

        Args:
            encoded: its result.
            lengths: samples of each item; None means that all have T frames.
            level, bitrate: as in `with_rate`.
            n_codebooks: most levels of a frame; None means all K.
        Returns:
            as `encode_with_side`.
        Raises:
            ValueError: as `with_rate`, or a bitrate out of the codec's range.
        """
        keep = check_levels(n_codebooks, self.spec)
        codes = encoded.codes
        frames = [codes.shape[-1]] * len(codes) if lengths is None else self._frames_of(lengths)
        found = allocate(encoded, Rate(level, bitrate, keep), self.spec, frames)
        return Encoded(found.codes[:, :keep], found.side)

    def with_rate(self, *, level: float | None = None, bitrate: float | None = None) -> Self:
        """Return this codec, with the same weights, with a variable bitrate.

        Args:
            level: the number of levels that frames keep grows with it; above 0. VRVQ draws it from
                0.125 to 6 in training.
            bitrate: kbps on average over each utterance, with the bits of the depth. One of the
                two. It depends on the whole utterance, so live audio needs a level.
        Raises:
            ValueError: the codec has one bitrate, not exactly one value above 0, or a bitrate that
                no audio reaches.
        """
        rate = Rate(level, bitrate)
        self._check_variable(f"level = {level}" if bitrate is None else f"bitrate = {bitrate}")
        check_reach(rate, self.spec, self.spec.n_codebooks)
        codec = copy.copy(self)
        codec.rate = rate
        if DEPTH not in self.side_names:
            codec.side_names = (*self.side_names, DEPTH)
        return codec

    @property
    def variable(self) -> bool:
        """True if the codec can give each frame a number of levels of its own."""
        return False

    def _check_variable(self, what: str) -> None:
        if not self.variable:
            raise ValueError(
                f"{what}: {self.spec.name} has no variable bitrate; leave it out, choose levels "
                "with n_codebooks, or use a codec with an importance network"
            )

    def _encode_with_importance(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        """Encode as `_encode`, with all levels and the side information `importance` [B, T]."""
        raise ValueError(f"{self.spec.name} has no variable bitrate")

    def _frames_of(self, lengths: Sequence[int]) -> list[int]:
        return [self.spec.n_frames(n) for n in lengths]
