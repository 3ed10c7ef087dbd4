"""Generate speech with one call: from a text, from the features of audio, after a prompt, in a gap.

made = generate(model, text="Press two to call back.")
made = generate(model, codec, like=waveform)
made = generate(model, codec, prompt=waveform, seconds=3.0)
made = generate(model, codec, infill=waveform, start=0.5, end=1.0)
made = generate(model, codec, vary=waveform, keep=0.3)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.codec.stable.settings import StableDecoding
from tokgen.generation.clips import Generated, check_rate
from tokgen.generation.generators import find_generator
from tokgen.generation.request import Audio, Request
from tokgen.generation.settings import SamplingSettings, WindowSettings, check_seed
from tokgen.generation.speech import Speaker
from tokgen.generation.windows import Windows
from tokgen.modelling.loading import load_transformer
from tokgen.modelling.text.model import TextModel
from tokgen.modelling.transformer import TokenTransformer
from tokgen.runs.device import pick_device
from tokgen.zoo.recorded import codec_of

__all__ = ["LoadedGenerator", "generate", "load_generator"]


def generate(
    model: TokenTransformer | Speaker | str | Path,
    codec: Codec | str | Path | None = None,
    *,
    text: str | None = None,
    speed: float | None = None,
    like: Audio | None = None,
    prompt: Audio | None = None,
    seconds: float | None = None,
    infill: Audio | None = None,
    start: float | None = None,
    end: float | None = None,
    vary: Audio | None = None,
    keep: float | None = None,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    stable: bool | StableDecoding = False,
    window_seconds: float = WindowSettings.window_seconds,
    overlap_seconds: float = WindowSettings.overlap_seconds,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> Generated:
    """Generate one utterance of any length.

    `text` is spoken by a model that `recipes/tts_masked.py` trained.
    `like` alone generates all codes from the features (MFCC or log-mel) of the audio that it gives.
    `prompt` keeps the codes of a beginning and generates `seconds` of audio after it. `infill`
    keeps the codes around a gap and generates those of the frames that overlap the gap. `vary`
    keeps a share of the codes, which the seed chooses, and generates the others. In these three a
    model with conditioning works without it, unless `like` gives audio as long as the result.

    Audio is a waveform [1, N] or [N] float in [-1, 1] at `codec.spec.sample_rate` Hz, or an audio
    file. Another seed gives another result.

    Args:
        model: a model in eval mode; or its folder, that of the run that trained it, or its hub id;
            or the name of a codec that has a generator beside it, such as "speech-16k". A `Speaker`
            for `text`, if it is an object.
        codec: the codec of the model, or its name as in `load_codec`. None loads the one that the
            model lies beside, or that it was made for.
        text: what to say, at least a word. It goes without audio.
        speed: speed of the speech of `text`, 0.25 to 4; None is 1, that of the training speech.
        like: audio to take the conditioning from, and the side information if the codec has any.
        prompt: audio to continue. If it ends within a frame, that frame is generated anew.
        seconds: length of the continuation; None is 3, or what `like` leaves after the prompt.
        infill: audio with a gap to fill.
        start, end: limits of the gap in seconds.
        vary: audio to make a variation of.
        keep: share of the codes of `vary` that stay, in 0..1; None is 0.3.
        settings: settings of the sampler; None uses the defaults of `SamplingSettings`.
        seed: seed of all noise.
        stable: decode so that encoding the waveform gives more of the generated codes again, see
            `Codec.decode`. The result's `reached` says how many come back.
        window_seconds, overlap_seconds: longer audio is generated in windows that overlap, see
            `WindowSettings`. The model's memory then does not grow with the length.
        device: device to load a model on that is given by name. A codec that is given by name goes
            to the device of the model.
        progress: show a bar if it takes long.
    Returns:
        codes [K, T], waveform [1, N] and the seconds that sampling took. Kept codes are decoded
        with the others, so the kept part sounds as the codec makes it.
    Raises:
        ValueError: not one of `text`, `like`, `prompt`, `infill` and `vary`; `text` with a model
            object that is no `Speaker`; a wrong shape, length, share
            or gap; `like` with a model that has no conditioning; the model was made for another
            codec; or the codec cannot decode stably.
        FileNotFoundError: no such model, codec or file, or no generator beside the codec, or no
            text model beside the model.
    """
    check_seed(seed)
    lengths = WindowSettings(window_seconds=window_seconds, overlap_seconds=overlap_seconds)
    request = Request(
        like=like, prompt=prompt, seconds=seconds, infill=infill, start=start, end=end, vary=vary,
        keep=keep, text=text, speed=speed,
    )  # fmt: skip
    loaded = load_generator(model, codec, speaks=text is not None, device=device)
    return request.prepare(*loaded).generate(
        settings or SamplingSettings(),
        Windows.of(lengths, loaded.codec.spec),
        seed=seed,
        stable=stable,
        progress=progress,
    )


class LoadedGenerator(NamedTuple):
    """A model, the codec that it was made for, and its text model if it has to speak."""

    model: TokenTransformer
    codec: Codec
    text: TextModel | None = None


def load_generator(
    model: TokenTransformer | Speaker | str | Path,
    codec: Codec | str | Path | None = None,
    *,
    speaks: bool = False,
    device: str | torch.device = "auto",
) -> LoadedGenerator:
    """Load a model and the codec that it was made for.

    Args:
        model, codec, device: as for `generate`.
        speaks: load the text model of the model too.
    Raises:
        ValueError: the model was made for another codec, or does not name its codec, or is an
            object that does not speak.
        FileNotFoundError: no such model or codec, no generator beside the codec, or no text model.
    """
    text: TextModel | None = None
    if isinstance(model, Speaker):
        text, model = model.text, model.model
    elif isinstance(model, TokenTransformer):
        if speaks:
            raise ValueError("text= with a model that has no text model: pass a Speaker, or a name")
    else:
        found = find_generator(model, speaks=speaks)
        codec = found.codec if codec is None else codec
        place = pick_device(device)
        if speaks:
            speaker = Speaker.from_pretrained(found.folder, device=place)
            model, text = speaker.model, speaker.text
        else:
            model = load_transformer(found.folder).to(place).eval()
    if model.config["codec"] is None:
        raise ValueError("the model does not name its codec: use generate_clips with codes")
    made_for = CodecSpec(**model.config["codec"])
    codec = codec_of(made_for, codec, device=next(model.parameters()).device)
    model.check_codec(codec.spec)
    check_rate(model, codec)
    if model.variable_depth and codec.rate is None:
        codec = codec.with_rate(**model.config["rate"])
    return LoadedGenerator(model, codec, text)
