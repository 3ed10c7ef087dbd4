"""Decode codes to audio from which they come back, window by window.

A window holds `window_seconds`, with the context that its codes depend on. The change of a window
reaches as far past its end as its last codes see; the next window starts from there. Frames that
are still wrong are then searched alone, several rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from tokgen.codec.spec import CodecSpec
from tokgen.codec.stable.search import Segment, search
from tokgen.codec.stable.settings import Reached, StableAudio, StableDecoding
from tokgen.codec.stable.targets import CodeTargets
from tokgen.codec.stable.transports import make_transport, round_to_16_bits
from tokgen.codec.windows import Reach
from tokgen.runs.device import float64

__all__ = [
    "WHOLE_SECONDS",
    "Searchable",
    "StableBlock",
    "check_searchable",
    "decode_stable",
    "measure",
    "stable_blocks",
]

WHOLE_SECONDS = 60.0  # longest audio of a codec whose codes depend on the whole of it
_GAP = 2  # frames around a wrong frame that change with it


class Searchable(Protocol):
    """Interface of a codec for the search: `tokgen.codec.stages.StagedCodec` with levels.

    It may have `search_latents`, an `encode_latents` whose weights get no gradient.
    """

    spec: CodecSpec
    side_names: tuple[str, ...]

    @property
    def device(self) -> torch.device: ...

    def encode_latents(self, waveform: Tensor) -> Tensor: ...

    def search_levels(self) -> Sequence[Any] | None: ...

    def encode(self, waveform: Tensor, n_codebooks: int | None = None) -> Tensor: ...


@dataclass(frozen=True)
class StableBlock:
    """A piece of stable audio.

    Attributes:
        audio: [B, 1, n].
        plain: as it was decoded, [B, 1, n].
        n_frames: frames that it holds.
        steps: steps of the search.
    """

    audio: Tensor
    plain: Tensor
    n_frames: int
    steps: float


def check_searchable(codec: Any) -> None:
    """Raise ValueError if a codec cannot decode stably."""
    if codec.rate is not None:
        raise ValueError(
            f"{codec.spec.name} with a variable bitrate: stable decoding needs all levels of each "
            "frame; use the codec without level and bitrate, or decode without stable"
        )
    levels = codec.search_levels()
    if levels is None or not hasattr(codec, "encode_latents") or codec.side_names:
        raise ValueError(
            f"{codec.spec.name} cannot decode stably, which needs an encoder with a gradient and "
            "residual codebooks: use tokgen's STFT codec, DAC, EnCodec at 24 kHz, X-Codec, "
            "SpeechTokenizer, BigCodec or WavTokenizer, or decode without stable"
        )
    if codec.search is not None:
        raise ValueError(
            f"{codec.spec.name} with beam search: stable decoding makes codes that greedy encoding "
            "finds again; decode with codec.with_beam(1)"
        )


def decode_stable(
    codec: Searchable,
    codes: Tensor,
    plain: Tensor,
    settings: StableDecoding,
    progress: Callable[[int], None] = lambda n: None,
) -> StableAudio:
    """Change plainly decoded audio so that its codes come back.

    Items are searched one by one, so the result does not depend on the batch.

    Args:
        codes: int64 [B, k, T].
        plain: the decoded audio, [B, 1, N].
        progress: is called with the number of frames that are done.
    Raises:
        ValueError: the codec has no gradient or no levels, or see `stable_blocks`.
    """
    items = []
    for item, audio in zip(codes.split(1), plain.split(1), strict=True):
        blocks = []
        for block in stable_blocks(codec, item, iter([audio]), audio.shape[-1], settings):
            blocks.append(block)
            progress(block.n_frames)
        items.append(blocks)
    waveform = torch.cat([torch.cat([x.audio for x in blocks], -1) for blocks in items])
    n_frames = codes.shape[-1]
    steps = [sum(x.steps * x.n_frames for x in blocks) / n_frames for blocks in items]
    return StableAudio(
        waveform, measure(codec, codes, plain, waveform, torch.tensor(steps), settings)
    )


def measure(
    codec: Searchable,
    codes: Tensor,
    plain: Tensor,
    waveform: Tensor,
    steps: Tensor,
    settings: StableDecoding,
) -> Reached:
    """Encode audio [B, 1, N] again and compare the codes with the wanted ones, [B, k, T]."""
    noise = torch.Generator().manual_seed(settings.seed)
    rate = codec.spec.sample_rate

    def kept(audio: Tensor) -> Tensor:
        again = torch.cat([codec.encode(x, codes.shape[1]) for x in audio.split(1)])
        return float64(again == codes).mean((1, 2)).cpu()

    power, change = (float64(x).square().sum((1, 2)) for x in (plain, waveform - plain))
    ratio = torch.where(change > 0, power / change, torch.inf)
    survived = {
        name: kept(make_transport(name, rate)(waveform, noise)) for name in settings.robust_to
    }
    return Reached(kept(waveform), steps, 10 * ratio.log10().cpu(), survived)


def stable_blocks(
    codec: Searchable,
    codes: Tensor,
    plain: Iterator[Tensor],
    n_samples: int,
    settings: StableDecoding,
) -> Iterator[StableBlock]:
    """Yield stable audio window by window, in bounded memory.

    Args:
        codes: int64 [1, k, T].
        plain: the decoded audio in blocks [1, 1, n].
        n_samples: samples in all.
    Raises:
        ValueError: the codec cannot decode stably, or its codes depend on the whole audio and this
            is longer than `WHOLE_SECONDS`.
    """
    check_searchable(codec)
    return _Windows(codec, codes.to(codec.device), plain, n_samples, settings).run()


class _Windows:
    def __init__(
        self,
        codec: Searchable,
        codes: Tensor,
        plain: Iterator[Tensor],
        n_samples: int,
        settings: StableDecoding,
    ) -> None:
        self.codec, self.codes, self.settings = codec, codes, settings
        self.encode = getattr(codec, "search_latents", codec.encode_latents)
        self.source, self.n_samples = plain, n_samples
        spec = codec.spec
        self.hop, self.n_frames = spec.hop_length, codes.shape[-1]
        reach: Reach | None = getattr(codec, "encoder_reach", None)
        self.size = max(1, round(settings.window_seconds * spec.frame_rate))
        if reach is None:
            if n_samples > WHOLE_SECONDS * spec.sample_rate:
                raise ValueError(
                    f"{n_samples / spec.sample_rate:.0f} s: the codes of {spec.name} depend on the "
                    f"whole audio, so stable decoding takes up to {WHOLE_SECONDS:g} s; encode "
                    "shorter parts"
                )
            self.size = self.n_frames
        self.reach = self.n_frames if reach is None else max(reach.before, reach.after, reach.first)
        levels = codec.search_levels()
        assert levels is not None
        self.targets = CodeTargets(levels, codes)
        self.transports = [make_transport(x, spec.sample_rate) for x in settings.robust_to]
        self.in_16_bits = bool({"int16", "dither"} & set(settings.robust_to))
        self.noise = torch.Generator().manual_seed(settings.seed)
        self.origin = 0  # first frame of the buffers
        self.plain = self.audio = torch.empty(1, 1, 0, device=codec.device)

    def run(self) -> Iterator[StableBlock]:
        for start in range(0, self.n_frames, self.size):
            stop = min(self.n_frames, start + self.size)
            steps = self._window(start, stop)
            low, high = self._samples(start, stop)
            yield StableBlock(
                self.audio[..., low:high], self.plain[..., low:high], stop - start, steps
            )
            keep = max(self.origin, stop - 3 * self.reach)
            cut = self._samples(keep, keep)[0]
            self.plain, self.audio = self.plain[..., cut:], self.audio[..., cut:]
            self.origin = keep

    def _window(self, start: int, stop: int) -> float:
        """Search the frames of a window; return the steps that it took."""
        end = self.n_frames if stop == self.n_frames else min(self.n_frames, stop + self.reach)
        self._fill(min(self.n_frames, end + 2 * self.reach))
        must = max(0, start - self.reach), stop
        wrong, _ = self._search(start, end, must, replace(self.settings, steps=0, margin=0.0))
        if not wrong:
            return 0.0
        wrong, steps = self._search(start, end, must, self.settings)
        for _ in range(self.settings.repairs):
            left = wrong
            for first, last in _clusters(sorted(wrong), self.reach):
                low, high = max(start, first - _GAP), min(end, last + 1 + _GAP)
                near = max(must[0], low - self.reach), min(stop, high + self.reach)
                found, more = self._search(low, high, near, self.settings)
                left = {x for x in left if not near[0] <= x < near[1]} | found
                steps += more * (high - low) / (end - start)
            wrong = left
            if not wrong:
                break
        return steps

    def _search(
        self, start: int, stop: int, must: tuple[int, int], settings: StableDecoding
    ) -> tuple[set[int], float]:
        """Change the audio of some frames; return the frames of `must` that are still wrong."""
        low = max(0, start - 2 * self.reach)
        high = min(self.n_frames, stop + 2 * self.reach)
        near = max(0, start - self.reach), min(self.n_frames, stop + self.reach)
        place = slice(*self._samples(low, high))
        segment = Segment(
            self.audio[..., place],
            self.plain[..., place],
            self._gate(start - low, stop - low, low, place.stop - place.start),
            self.targets.cut(low, high),
            slice(near[0] - low, near[1] - low),
            slice(must[0] - low, must[1] - low),
        )
        found = search(
            self.encode,
            segment,
            settings,
            self.transports,
            self.codec.spec.sample_rate,
            self.noise,
        )
        self.audio[..., place] = self._rounded(found.audio)
        return {low + x for x in found.wrong[0].nonzero()[:, 0].tolist()}, float(found.steps[0])

    def _gate(self, start: int, stop: int, low: int, n: int) -> Tensor:
        """Return 1 inside frames of a segment, 0 outside, with fades of a frame inside."""
        hop = self.hop
        gate = torch.zeros(n, device=self.audio.device)
        gate[start * hop : stop * hop] = 1
        fade = torch.hann_window(2 * hop, device=gate.device)
        if low + start > 0:
            gate[start * hop : (start + 1) * hop] = fade[:hop]
        if low + stop < self.n_frames:
            gate[(stop - 1) * hop : stop * hop] *= fade[hop:]
        return gate

    def _fill(self, stop: int) -> None:
        """Read plain audio up to a frame."""
        missing = self._samples(stop, stop)[0] - self.plain.shape[-1]
        pieces = [self.plain]
        while missing > 0:
            pieces.append(next(self.source).to(self.plain))
            missing -= pieces[-1].shape[-1]
        self.plain = torch.cat(pieces, -1)
        new = self.plain[..., self.audio.shape[-1] :]
        self.audio = torch.cat([self.audio, self._rounded(new)], -1)

    def _rounded(self, audio: Tensor) -> Tensor:
        return round_to_16_bits(audio) if self.in_16_bits else audio.clone()

    def _samples(self, start: int, stop: int) -> tuple[int, int]:
        """Return the samples of frames in the buffers."""
        ends = (min(x * self.hop, self.n_samples) - self.origin * self.hop for x in (start, stop))
        low, high = ends
        return low, high


def _clusters(frames: list[int], reach: int) -> list[tuple[int, int]]:
    """Join wrong frames that see each other; return the first and the last of each group."""
    groups: list[tuple[int, int]] = []
    for frame in frames:
        if groups and frame - groups[-1][1] <= reach:
            groups[-1] = groups[-1][0], frame
        else:
            groups.append((frame, frame))
    return groups
