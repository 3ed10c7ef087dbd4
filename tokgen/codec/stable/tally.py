"""Count the codes that come back from stable audio of any length, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.checks import WholeOnly
from tokgen.codec.spec import Encoded
from tokgen.codec.stable.decoding import StableBlock
from tokgen.codec.stable.settings import Reached, StableDecoding
from tokgen.codec.stable.transports import make_transport
from tokgen.runs.device import float64

__all__ = ["CHUNK_SECONDS", "Tally"]

CHUNK_SECONDS = 30.0  # longer audio goes through transports in chunks of at least this


class Tally:
    """Encodes stable audio again as it arrives, and counts the codes that come back.

    The codes equal those of the whole audio. Audio of up to twice `CHUNK_SECONDS` goes through
    every transport as a whole; longer audio goes in chunks, which are joined before they are
    encoded.

    Args:
        codec: the codec that decodes.
        codes: the wanted codes, int64 [1, k, T].
        settings: settings of the search.
        lead: samples before the audio's grid, of which encoding makes zeros.
    """

    def __init__(self, codec: Any, codes: Tensor, settings: StableDecoding, lead: int = 0) -> None:
        rate, self.lead = codec.spec.sample_rate, lead
        self.carried = [(make_transport(x, rate), _Count(codec, codes)) for x in settings.robust_to]
        self.names, self.plainly = settings.robust_to, _Count(codec, codes)
        self.noise = torch.Generator().manual_seed(settings.seed)
        self.least = round(CHUNK_SECONDS * rate)
        self.waiting: list[Tensor] = []
        self.n_frames, self.steps, self.power, self.change = 0, 0.0, 0.0, 0.0

    def counted(self, blocks: Iterator[StableBlock]) -> Iterator[Tensor]:
        """Yield the audio of blocks, and add them."""
        while True:
            with torch.enable_grad():
                block = next(blocks, None)
            if block is None:
                return
            self.add(block)
            yield block.audio

    def add(self, block: StableBlock) -> None:
        """Add the next block of audio."""
        self.n_frames += block.n_frames
        self.steps += block.steps * block.n_frames
        self.power += float64(block.plain).square().sum().item()
        self.change += float64(block.audio - block.plain).square().sum().item()
        zeros = min(self.lead, block.audio.shape[-1])
        self.waiting.append(F.pad(block.audio[..., zeros:], (zeros, 0)))
        self.lead -= zeros
        if sum(x.shape[-1] for x in self.waiting) >= 2 * self.least:
            audio = torch.cat(self.waiting, -1)
            self.waiting = [audio[..., self.least :]]
            self._encode(audio[..., : self.least])

    def finish(self) -> Reached:
        """Return what was reached for all of the audio."""
        self._encode(torch.cat(self.waiting, -1))
        ratio = self.power / self.change if self.change else math.inf
        counts = zip(self.names, self.carried, strict=True)
        return Reached(
            self.plainly.share(),
            torch.tensor([self.steps / self.n_frames]),
            torch.tensor([10 * math.log10(ratio) if ratio > 0 else -math.inf], dtype=torch.float64),
            {name: count.share() for name, (_, count) in counts},
        )

    @torch.no_grad()
    def _encode(self, audio: Tensor) -> None:
        self.plainly.push(audio)
        for carry, count in self.carried:
            count.push(carry(audio, self.noise))


class _Count:
    """The share of codes that come back from audio which arrives in pieces."""

    def __init__(self, codec: Any, codes: Tensor) -> None:
        self.codec, self.codes = codec, codes.to(codec.device)
        self.pieces: list[Tensor] = []
        self.n_frames = self.n_kept = 0
        try:
            self.encoder = codec.block_encoder()
        except WholeOnly:
            self.encoder = None

    @torch.no_grad()
    def push(self, audio: Tensor) -> None:
        if self.encoder is None:
            self.pieces.append(audio)
        else:
            audio = audio.expand(-1, self.codec.spec.channels, -1)
            self._compare(self.encoder.push(audio.to(self.codec.device)))

    @torch.no_grad()
    def share(self) -> Tensor:
        """Return the share at the end of the audio, [1]."""
        if self.encoder is None:
            whole = self.codec.encode(torch.cat(self.pieces, -1), self.codes.shape[1])
            self._compare(iter([Encoded(whole)]))
        else:
            self._compare(self.encoder.finish())
        return torch.tensor([self.n_kept / self.codes.numel()], dtype=torch.float64)

    def _compare(self, found: Iterator[Encoded]) -> None:
        for piece in found:
            n, k = piece.codes.shape[-1], self.codes.shape[1]
            wanted = self.codes[..., self.n_frames : self.n_frames + n]
            self.n_kept += int((piece.codes[:, :k] == wanted).sum())
            self.n_frames += n
