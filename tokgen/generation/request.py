"""A request to generate: the text, or the audio that is given and the codes to keep of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.audio.files import read_audio
from tokgen.codec.base import Codec
from tokgen.codec.long_audio import encode_blocks
from tokgen.codec.spec import DEPTH, Encoded, Side
from tokgen.codec.stable.settings import StableDecoding
from tokgen.generation.clips import Generated, conditioning_for, generate_clips
from tokgen.generation.prompts import around, frame_starts, scattered
from tokgen.generation.settings import SamplingSettings, check_seed
from tokgen.generation.windows import Windows
from tokgen.modelling.text.model import TextModel
from tokgen.modelling.text.settings import check_speed
from tokgen.modelling.transformer import TokenTransformer

__all__ = ["CONTINUATION_SECONDS", "KEEP", "WHOLE_SECONDS", "Audio", "Prepared", "Request"]

CONTINUATION_SECONDS = 3.0
KEEP = 0.3  # share of codes that `vary` keeps

WHOLE_SECONDS = 60.0  # longest audio that is encoded as a whole

Audio = Tensor | np.ndarray | str | Path


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `generate` that say what to generate; see there.

    Raises:
        ValueError: arguments that do not go together, or a value out of range.
    """

    like: Audio | None = None
    prompt: Audio | None = None
    seconds: float | None = None
    infill: Audio | None = None
    start: float | None = None
    end: float | None = None
    vary: Audio | None = None
    keep: float | None = None
    text: str | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        given = [audio for audio in (self.prompt, self.infill, self.vary) if audio is not None]
        if self.text is not None and (given or self.like is not None):
            raise ValueError("text= with audio: a text is spoken alone; give one of them")
        if self.text is not None and not self.text.strip():
            raise ValueError(f"text = {self.text!r}: there is nothing to say")
        if self.speed is not None:
            if self.text is None:
                raise ValueError("speed= without text=: it is the speed of speech")
            check_speed(self.speed)
        if len(given) > 1 or (not given and self.like is None and self.text is None):
            raise ValueError(
                "give one of text=, like=, prompt=, infill= and vary=; like= may go with the last "
                "three"
            )
        start, end, seconds, keep = self.start, self.end, self.seconds, self.keep
        if (self.infill is None) != (start is None) or (self.infill is None) != (end is None):
            raise ValueError(
                "infill=, start= and end= go together: the audio, and its gap in seconds"
            )
        if seconds is not None and self.prompt is None:
            raise ValueError("seconds= without prompt=: it is the length of a continuation")
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"seconds = {seconds}: must be above 0 and finite")
        if start is not None and end is not None and not 0 <= start < end < math.inf:
            raise ValueError(
                f"a gap from start = {start} to end = {end}: must start at 0 s or later, and end "
                "after its start"
            )
        if keep is not None and self.vary is None:
            raise ValueError("keep= without vary=: it is the share of the codes that stay")
        if keep is not None and not 0 <= keep <= 1:
            raise ValueError(f"keep = {keep}: must be in 0..1, the share of the codes that stay")

    def prepare(
        self, model: TokenTransformer, codec: Codec, speaks: TextModel | None = None
    ) -> Prepared:
        """Read and encode the audio, or read the text.

        Args:
            model: the model that generates.
            codec: its codec.
            speaks: the text model of `model`, for a text.
        Raises:
            ValueError: as `generate`.
        """
        if self.text is not None:
            assert speaks is not None
            return _read_text(self.text, self.speed or 1.0, model, codec, speaks)
        rate = codec.spec.sample_rate
        source = None if self.like is None else _read(self.like, rate, "like")
        known = None
        if self.prompt is not None:
            heard = _read(self.prompt, rate, "prompt")
            known = _continue(codec, heard, _added(heard, source, self.seconds, rate))
        elif self.infill is not None and self.start is not None and self.end is not None:
            audio = _read(self.infill, rate, "infill")
            known = _open_gap(codec, audio, self.start, self.end)
        elif self.vary is not None:
            share = KEEP if self.keep is None else self.keep
            known = _vary(codec, _read(self.vary, rate, "vary"), share)
        n_samples = known.n_samples if known else _length(source)
        if source is not None and _length(source) != n_samples:
            raise ValueError(
                f"like has {_length(source)} samples, but the result will have {n_samples}: it "
                "must be as long as the result"
            )
        side = dict(known.side) if known else {}
        needed = [name for name in codec.side_names if name != DEPTH or not model.variable_depth]
        if needed and source is not None:
            side = {**_encode(codec, source).side, **{k: v for k, v in side.items() if k == DEPTH}}
        if any(name not in side for name in needed):
            raise ValueError(
                f"{codec.spec.name} needs side information {needed}, which the model does not "
                "generate: pass audio as long as the result as like="
            )
        features = None if source is None else conditioning_for(model, [source])[0]
        return Prepared(model, codec, n_samples, known, features, side)


@dataclass(frozen=True)
class Prepared:
    """All that a model needs to generate one utterance, with any seed.

    Attributes:
        model: a model in eval mode.
        codec: the codec of the model.
        n_samples: samples of the result.
        known: the codes that are given; None generates all.
        conditioning: [T, C], or None.
        side: side information for decoding.
    """

    model: TokenTransformer
    codec: Codec
    n_samples: int
    known: _Known | None
    conditioning: Tensor | None
    side: Side

    def generate(
        self,
        settings: SamplingSettings,
        windows: Windows,
        *,
        seed: int,
        stable: bool | StableDecoding = False,
        progress: bool = False,
    ) -> Generated:
        """Generate the utterance. Arguments are those of `tokgen.generate`."""
        check_seed(seed)
        known, levels = self.known, self.model.n_codebooks
        return generate_clips(
            self.model,
            self.codec,
            [self.n_samples],
            settings,
            codes=[known.codes[:levels]] if known else None,
            keep=[known.kept(self.codec, seed)[:levels]] if known else None,
            conditioning=None if self.conditioning is None else [self.conditioning],
            sides=[self.side] if self.side else None,
            seed=seed,
            stable=stable,
            windows=windows,
            progress=progress,
        )[0]


@dataclass(frozen=True)
class _Known:
    """An utterance of `n_samples` samples: its codes [K, T], and which of them to keep.

    That is a mask [K, T], or the share of the codes that each seed keeps.
    """

    n_samples: int
    codes: Tensor
    keep: Tensor | float
    side: Side = field(default_factory=dict)

    def kept(self, codec: Codec, seed: int) -> Tensor:
        """Return the mask [K, T] of the codes to keep."""
        if isinstance(self.keep, Tensor):
            return self.keep
        return scattered(codec.spec, self.n_samples, self.keep, seed=seed)


def _read_text(
    text: str, speed: float, model: TokenTransformer, codec: Codec, speaks: TextModel
) -> Prepared:
    """Return the frames of a text."""
    needed = [name for name in codec.side_names if name != DEPTH or not model.variable_depth]
    if needed:
        raise ValueError(
            f"{codec.spec.name} decodes with side information {needed}, which a text does not "
            "give: use a model of another codec"
        )
    [frames] = speaks.frames([text], speed=speed)
    return Prepared(model, codec, codec.spec.n_samples(len(frames)), None, frames, {})


def _read(audio: Audio, sample_rate: int, name: str) -> Tensor:
    """Return audio as a waveform [1, N] on the CPU."""
    if isinstance(audio, np.ndarray):
        audio = torch.from_numpy(audio).float()
    if not isinstance(audio, Tensor):
        return read_audio(audio, sample_rate=sample_rate)[0]
    waveform = audio[None] if audio.ndim == 1 else audio
    if waveform.ndim != 2 or len(waveform) != 1 or not waveform.shape[-1]:
        raise ValueError(f"{name} of shape {tuple(audio.shape)}: expected mono audio [1, N] or [N]")
    return waveform.detach().cpu()


def _length(waveform: Tensor | None) -> int:
    return 0 if waveform is None else waveform.shape[-1]


def _encode(codec: Codec, waveform: Tensor) -> Encoded:
    """Return the codes [K, T] and the side information of a waveform [1, N] on the CPU."""
    if waveform.shape[-1] <= WHOLE_SECONDS * codec.spec.sample_rate:
        [encoded] = codec.encode_batch_with_side([waveform])
        return Encoded(encoded.codes.cpu(), encoded.side)
    block = codec.spec.sample_rate  # one second: memory does not grow with the length
    encoded = encode_blocks(codec, waveform.split(block, dim=-1))
    side = {name: values[0].cpu() for name, values in encoded.side.items()}
    return Encoded(encoded.codes[0].cpu(), side)


def _added(prompt: Tensor, like: Tensor | None, seconds: float | None, sample_rate: int) -> int:
    """Return the number of samples of a continuation."""
    if seconds is None and like is not None:
        if _length(like) <= _length(prompt):
            raise ValueError(
                f"like has {_length(like)} samples and prompt {_length(prompt)}: like must be as "
                "long as the prompt and its continuation"
            )
        return _length(like) - _length(prompt)
    seconds = CONTINUATION_SECONDS if seconds is None else seconds
    if not 1 <= seconds * sample_rate < math.inf:
        raise ValueError(f"seconds = {seconds}: must be above 0 and finite")
    return round(seconds * sample_rate)


def _continue(codec: Codec, prompt: Tensor, n_added: int) -> _Known:
    """Keep the frames that end within the prompt: a later one may code silence after it."""
    spec, n_samples = codec.spec, _length(prompt) + n_added
    found = _encode(codec, prompt)
    spare = spec.n_frames(n_samples) - found.codes.shape[-1]
    codes = F.pad(found.codes, (0, spare))
    side = {DEPTH: F.pad(found.side[DEPTH], (0, spare))} if DEPTH in found.side else {}
    ends = (frame_starts(spec, n_samples) * spec.sample_rate).round() + spec.hop_length
    keep = (ends <= _length(prompt)).expand(len(codes), -1).clone()
    return _Known(n_samples, codes, keep, side)


def _open_gap(codec: Codec, audio: Tensor, start: float, end: float) -> _Known:
    """Keep the frames that do not overlap a gap."""
    spec, n_samples = codec.spec, _length(audio)
    seconds = n_samples / spec.sample_rate
    if not 0 <= start < end <= seconds:
        raise ValueError(
            f"a gap from start = {start} to end = {end}: must lie within the {seconds:g} s of the "
            "audio, with start before end"
        )
    found = _encode(codec, audio)
    return _Known(n_samples, found.codes, around(spec, n_samples, start, end), found.side)


def _vary(codec: Codec, audio: Tensor, share: float) -> _Known:
    """Keep a share of the codes."""
    found = _encode(codec, audio)
    return _Known(_length(audio), found.codes, share, found.side)
