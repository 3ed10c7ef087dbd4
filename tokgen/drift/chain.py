"""Send one clip through a codec again and again, plainly, stably or on the frame grid it finds.

A clip that moves between passes and whose grid is searched gets silence around it, so that its
codes do not depend on its place. What a stable pass returns depends on the codes of the clip alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from tokgen.codec.aligned import LEAD
from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.grid import check_grid
from tokgen.codec.stable.decoding import Searchable, check_searchable, stable_blocks
from tokgen.codec.stable.settings import StableDecoding
from tokgen.drift.shifts import frame_of

__all__ = ["PLAIN", "Pass", "Treatment", "check_treatment", "send_through"]


@dataclass(frozen=True)
class Treatment:
    """Measures against drift in each pass.

    Attributes:
        stable: decode stably, with these settings; None decodes plainly.
        grid: "auto" finds the frame grid of what it encodes.
    """

    stable: StableDecoding | None = None
    grid: Literal["auto"] | None = None

    def __bool__(self) -> bool:
        return self.stable is not None or self.grid is not None

    def name(self, codec: str) -> str:
        """Return the name of a codec with this treatment, such as "speech-16k (stable, grid)"."""
        words = ["stable"] * (self.stable is not None) + ["grid"] * (self.grid is not None)
        return f"{codec} ({', '.join(words)})" if words else codec

    def plan(self) -> list[Any]:
        """Return what results depend on."""
        return [None if self.stable is None else asdict(self.stable), self.grid] if self else []


PLAIN = Treatment()
_FRAMES = 4  # of silence around a clip, for a codec that does not state how far its codes see


class Pass(NamedTuple):
    """One pass.

    Attributes:
        output: [1, N].
        level: of the output over the original, before levels are matched, in dB.
        codes: [K, T] of the frames of the clip; None for a waveform codec.
        depth: levels [T] of these frames; None if all have all levels.
    """

    output: Tensor
    level: float
    codes: Tensor | None
    depth: Tensor | None = None


def check_treatment(codec: Codec | WaveformCodec, treatment: Treatment) -> None:
    """Raise ValueError if a codec does not have a treatment."""
    if treatment and not isinstance(codec, Codec):
        raise ValueError(f"{codec.spec.name} has no codes, which {treatment.name('')} needs")
    if treatment.stable is not None:
        check_searchable(codec)
    if treatment.grid is not None:
        check_grid(cast(Codec, codec).spec)


def send_through(
    codec: Codec | WaveformCodec,
    original: Tensor,
    places: Sequence[int],
    match_level: bool,
    treatment: Treatment = PLAIN,
) -> Iterator[Pass]:
    """Yield the result of each pass over a clip [1, N].

    Args:
        places: samples before the clip in each pass.
        match_level: scale each output to the level of the original. A stable output is scaled
            before the search, since a change of level changes the codes.
    """
    heard, n, room = original, original.shape[-1], max(places)
    margin = _margin(codec) if room and treatment.grid else 0
    power = original.double().square().mean().item()
    stable = None
    if treatment.stable is not None:
        stable = _StableClip(cast(Codec, codec), treatment.stable, n, margin, power, match_level)
    for place in places:
        begin, total = margin + place, 2 * margin + n + room
        moved = pad(heard, (begin, total - begin - n)) if room else heard
        if not isinstance(codec, Codec):
            output, level = _matched(codec.roundtrip(moved[None])[0], begin, n, power, match_level)
            heard = output[:, begin : begin + n]
            yield Pass(heard, level, None)
            continue
        encoded = codec.encode_with_side(moved[None], grid=treatment.grid)
        lead = int(encoded.side.get(LEAD, torch.zeros(1)).item())
        start = lead + begin
        of_clip = _of_clip(encoded.codes, codec, start, n)
        depth = encoded.depth
        if stable is not None:
            heard, level = stable.decode(encoded.codes, of_clip, start, lead + total)
        else:
            plain = codec.decode(encoded.codes, total, encoded.side)[0].cpu()
            output, level = _matched(plain, begin, n, power, match_level)
            heard = output[:, begin : begin + n]
        if depth is not None:
            depth = _of_clip(depth, codec, start, n)[0].cpu()
        yield Pass(heard, level, of_clip[0].cpu(), depth)


class _StableClip:
    """Stable decoding of a clip of n samples. Equal codes are searched once.

    Args:
        margin: samples of silence around the clip, 0 for none.
        power: mean square of the original.
    """

    def __init__(
        self,
        codec: Codec,
        settings: StableDecoding,
        n: int,
        margin: int,
        power: float,
        match_level: bool,
    ) -> None:
        self.codec, self.settings, self.n, self.margin = codec, settings, n, margin
        self.power, self.match_level = power, match_level
        self.known: dict[bytes, tuple[Tensor, float]] = {}

    def decode(
        self, codes: Tensor, of_clip: Tensor, start: int, n_samples: int
    ) -> tuple[Tensor, float]:
        """Return the clip [1, n] and its level before levels are matched, in dB.

        Args:
            codes: [1, K, T] of the clip and what is around it, n_samples in all.
            of_clip: codes of the clip alone. If the clip begins with a frame, they decide.
            start: first sample of the clip.
        """
        alone = self.margin > 0 and start % self.codec.spec.hop_length == 0
        if alone:
            codes, start, n_samples = of_clip, self.margin, 2 * self.margin + self.n
        key = b"%d " % start + codes.cpu().numpy().tobytes()
        if key not in self.known:
            if alone:
                codes = self._in_silence(codes)
            self.known[key] = self._search(codes, start, n_samples)
        return self.known[key]

    def _search(self, codes: Tensor, start: int, n_samples: int) -> tuple[Tensor, float]:
        plain = self.codec.decode(codes, n_samples)[0]
        plain, level = _matched(plain, start, self.n, self.power, self.match_level)
        stop = start + self.n
        if self.margin:  # the next pass hears nothing around the clip
            plain = pad(plain[:, start:stop], (start, plain.shape[-1] - stop))
        with torch.enable_grad():
            codec, audio = cast(Searchable, self.codec), iter([plain[None]])
            blocks = stable_blocks(codec, codes, audio, plain.shape[-1], self.settings)
            found = torch.cat([block.audio for block in blocks], -1)[0]
        return found[:, start:stop].cpu(), level

    def _in_silence(self, codes: Tensor) -> Tensor:
        """Return the codes [1, K, T] of a clip with those of silence around it, [1, K, T']."""
        codec, margin, n = self.codec, self.margin, self.n
        first, audio = margin // codec.spec.hop_length, codec.decode(codes, n)
        for _ in range(2):  # first decoded without silence, then with it
            found = codec.encode(pad(audio, (margin, margin)))
            found[..., first : first + codes.shape[-1]] = codes
            audio = codec.decode(found, n + 2 * margin)[..., margin : margin + n]
        return found


def _margin(codec: Codec | WaveformCodec) -> int:
    """Return the samples of silence around a clip within which its codes depend on its place."""
    reach = getattr(codec, "encoder_reach", None)
    frames = _FRAMES if reach is None else max(reach.before, reach.after) + 1
    return frames * frame_of(codec.spec)


def _matched(
    output: Tensor, place: int, n: int, power: float, match_level: bool
) -> tuple[Tensor, float]:
    """Return audio [1, N], scaled if levels are matched, and the level of the clip in it in dB."""
    clip = output[:, place : place + n].double()
    level = math.sqrt(clip.square().mean().item() / power) if power else math.nan
    if match_level and level > 0 and math.isfinite(level):
        output = output / level
    return output, 20 * math.log10(level) if level > 0 else math.nan


def _of_clip(codes: Tensor, codec: Codec, start: int, n: int) -> Tensor:
    """Return the codes or depths [..., T] nearest to a clip of n samples from `start` on."""
    n_frames = codec.spec.n_frames(n)
    first = min(round(start / codec.spec.hop_length), codes.shape[-1] - n_frames)
    return codes[..., first : first + n_frames]
