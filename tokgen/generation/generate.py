"""Generate speech with one call: from the features of audio, after a prompt, or in a gap.

made = generate(model, codec, like=waveform)
made = generate(model, codec, prompt=waveform, seconds=3.0)
made = generate(model, codec, infill=waveform, start=0.5, end=1.0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.audio.files import read_audio
from tokgen.codec.base import Codec
from tokgen.codec.spec import DEPTH, CodecSpec, Encoded, Side
from tokgen.codec.stable.settings import StableDecoding
from tokgen.generation.clips import Generated, check_rate, conditioning_for, generate_clips
from tokgen.generation.prompts import around, frame_starts
from tokgen.generation.settings import SamplingSettings, check_seed
from tokgen.modelling.loading import load_transformer
from tokgen.modelling.transformer import TokenTransformer
from tokgen.runs.device import pick_device
from tokgen.zoo.recorded import codec_of

__all__ = ["CONTINUATION_SECONDS", "generate"]

CONTINUATION_SECONDS = 3.0


def generate(
    model: TokenTransformer | str | Path,
    codec: Codec | str | Path | None = None,
    *,
    like: Tensor | np.ndarray | str | Path | None = None,
    prompt: Tensor | np.ndarray | str | Path | None = None,
    seconds: float | None = None,
    infill: Tensor | np.ndarray | str | Path | None = None,
    start: float | None = None,
    end: float | None = None,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    stable: bool | StableDecoding = False,
    device: str | torch.device = "auto",
) -> Generated:
    """Generate one utterance.

    `like` alone generates all codes from the features (MFCC or log-mel) of the audio that it gives.
    `prompt` keeps the codes of a beginning and generates `seconds` of audio after it. `infill`
    keeps the codes around a gap and generates those of the frames that overlap the gap. In these
    two a model with conditioning works without it, unless `like` gives audio as long as the result.

    Audio is a waveform [1, N] or [N] float in [-1, 1] at `codec.spec.sample_rate` Hz, or an audio
    file. Another seed gives another result.

    Args:
        model: a model in eval mode, or its folder or hub id.
        codec: the codec of the model, or its name as in `load_codec`. None loads the one that the
            model was made for.
        like: audio to take the conditioning from, and the side information if the codec has any.
        prompt: audio to continue. If it ends within a frame, that frame is generated anew.
        seconds: length of the continuation; None is 3, or what `like` leaves after the prompt.
        infill: audio with a gap to fill.
        start, end: limits of the gap in seconds.
        settings: settings of the sampler; None uses the defaults of `SamplingSettings`.
        seed: seed of all noise.
        stable: decode so that encoding the waveform gives the generated codes, see `Codec.decode`.
            The result's `reached` says how many come back.
        device: device to load a model on that is given by name. A codec that is given by name goes
            to the device of the model.
    Returns:
        codes [K, T], waveform [1, N] and the seconds that sampling took. Kept codes are decoded
        with the others, so the kept part sounds as the codec makes it.
    Raises:
        ValueError: not one of `like`, `prompt` and `infill`; a wrong shape, length or gap; `like`
            with a model that has no conditioning; the model was made for another codec; or the
            codec cannot decode stably.
        FileNotFoundError: no such model, codec or file.
    """
    given = [audio for audio in (prompt, infill) if audio is not None]
    if len(given) == 2 or (not given and like is None):
        raise ValueError("give one of like=, prompt= and infill=; like= may go with the other two")
    if (infill is None) != (start is None) or (infill is None) != (end is None):
        raise ValueError("infill=, start= and end= go together: the audio, and its gap in seconds")
    if seconds is not None and prompt is None:
        raise ValueError("seconds= without prompt=: it is the length of a continuation")
    check_seed(seed)
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"seconds = {seconds}: must be above 0 and finite")
    if start is not None and end is not None and not 0 <= start < end < math.inf:
        raise ValueError(
            f"a gap from start = {start} to end = {end}: must start at 0 s or later, and end after "
            "its start"
        )
    if not isinstance(model, TokenTransformer):
        model = load_transformer(model).to(pick_device(device)).eval()
    if model.config["codec"] is None:
        raise ValueError("the model does not name its codec: use generate_clips with codes")
    made_for = CodecSpec(**model.config["codec"])
    codec = codec_of(made_for, codec, device=next(model.parameters()).device)
    model.check_codec(codec.spec)
    check_rate(model, codec)
    if model.variable_depth and codec.rate is None:
        codec = codec.with_rate(**model.config["rate"])
    rate = codec.spec.sample_rate
    source = None if like is None else _read(like, rate, "like")
    known = None
    if prompt is not None:
        heard = _read(prompt, rate, "prompt")
        known = _continue(codec, heard, _added(heard, source, seconds, rate))
    elif infill is not None and start is not None and end is not None:
        known = _open_gap(codec, _read(infill, rate, "infill"), start, end)
    n_samples = known.n_samples if known else _length(source)
    if source is not None and _length(source) != n_samples:
        raise ValueError(
            f"like has {_length(source)} samples, but the result will have {n_samples}: it must "
            "be as long as the result"
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
    return generate_clips(
        model,
        codec,
        [n_samples],
        settings or SamplingSettings(),
        codes=[known.codes[: model.n_codebooks]] if known else None,
        keep=[known.keep[: model.n_codebooks]] if known else None,
        conditioning=None if source is None else conditioning_for(model, [source]),
        sides=[side] if side else None,
        seed=seed,
        stable=stable,
    )[0]


@dataclass(frozen=True)
class _Known:
    """An utterance of `n_samples` samples: its codes [K, T] and a mask [K, T] of those to keep."""

    n_samples: int
    codes: Tensor
    keep: Tensor
    side: Side


def _read(audio: Tensor | np.ndarray | str | Path, sample_rate: int, name: str) -> Tensor:
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
    [encoded] = codec.encode_batch_with_side([waveform])
    return Encoded(encoded.codes.cpu(), encoded.side)


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
