"""Tests of `generate`: one utterance like audio, after a prompt, or in a gap."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from makers.audio import RATE, make_tone
from makers.codecs import MAKERS, make_encodec, make_stft_codec, save_codec
from makers.generators import make_generator
from tokgen.audio.files import write_audio
from tokgen.generation.clips import conditioning_for, generate_clips
from tokgen.generation.generate import generate
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.zoo.stft import StftCodec

SETTINGS = SamplingSettings(steps=(4, 1))


@pytest.fixture(scope="module")
def codec() -> StftCodec:
    return make_stft_codec(name="little", n_codebooks=3, codebook_size=32)


@pytest.fixture(scope="module")
def model(codec) -> MaskedTransformer:
    return make_generator(codec)


@pytest.fixture(scope="module")
def speech() -> Tensor:
    return make_tone(0.61, 3)[:, :9700]  # 30 frames and 100 samples


def test_like_generates_from_the_features_of_audio(model, codec, speech) -> None:
    made = generate(model, codec, like=speech, settings=SETTINGS, seed=4)
    assert made.waveform.shape == (1, 9700) and made.codes.shape == (3, 31)
    features = conditioning_for(model, [speech])
    [low] = generate_clips(model, codec, [9700], SETTINGS, conditioning=features, seed=4)
    assert made.codes.equal(low.codes) and made.waveform.equal(low.waveform)
    flat = generate(model, codec, like=speech[0], settings=SETTINGS, seed=4)
    assert made.codes.equal(flat.codes)
    other = generate(model, codec, like=speech, settings=SETTINGS, seed=5)
    assert not made.codes.equal(other.codes)


def test_a_model_in_bfloat16_generates(codec, speech) -> None:
    made = generate(make_generator(codec).bfloat16(), codec, like=speech, settings=SETTINGS)
    assert made.codes.shape == (3, 31) and made.waveform.dtype == torch.float32


def test_a_prompt_is_kept_and_continued(model, codec, speech) -> None:
    made = generate(model, codec, prompt=speech, seconds=0.5, settings=SETTINGS)
    assert made.waveform.shape == (1, 9700 + 8000)
    codes = codec.encode(speech[None])[0]
    assert made.codes[:, :30].equal(codes[:, :30])  # whole frames; the last one is generated anew
    other = generate(model, codec, prompt=speech, seconds=0.5, settings=SETTINGS, seed=1)
    assert other.codes[:, :30].equal(codes[:, :30])
    for frames in (slice(30, 31), slice(31, None)):
        assert not made.codes[:, frames].equal(other.codes[:, frames])
    whole = speech[:, :9600]
    made = generate(model, codec, prompt=whole, settings=SETTINGS)
    assert made.waveform.shape[-1] == 9600 + 3 * RATE
    assert made.codes[:, :30].equal(codec.encode(whole[None])[0])


def test_a_gap_is_filled(model, codec, speech) -> None:
    made = generate(model, codec, infill=speech, start=0.2, end=0.3, settings=SETTINGS)
    other = generate(model, codec, infill=speech, start=0.2, end=0.3, settings=SETTINGS, seed=1)
    codes = codec.encode(speech[None])[0]
    for found in (made, other):
        assert found.codes[:, :10].equal(codes[:, :10])
        assert found.codes[:, 15:].equal(codes[:, 15:])
    assert not made.codes[:, 10:15].equal(other.codes[:, 10:15])
    assert made.waveform.shape == speech.shape


def test_like_conditions_a_continuation_and_a_gap(model, codec, speech) -> None:
    prompt = speech[:, :3200]
    plain = generate(model, codec, prompt=prompt, seconds=6500 / RATE, settings=SETTINGS)
    guided = generate(model, codec, prompt=prompt, like=speech, settings=SETTINGS)
    assert plain.codes.shape == guided.codes.shape == (3, 31)
    assert plain.codes[:, :10].equal(guided.codes[:, :10])
    assert not plain.codes[:, 10:].equal(guided.codes[:, 10:])
    gap = {"infill": speech, "start": 0.2, "end": 0.3, "settings": SETTINGS}
    assert not generate(model, codec, **gap).codes.equal(
        generate(model, codec, **gap, like=speech).codes
    )
    with pytest.raises(ValueError, match="like has 9700 samples, but the result will have 4800"):
        generate(model, codec, prompt=prompt, seconds=0.1, like=speech)
    with pytest.raises(ValueError, match="like has 3200 samples and prompt 9700"):
        generate(model, codec, prompt=speech, like=prompt)


def test_a_model_without_conditioning_continues(codec, speech) -> None:
    bare = make_generator(codec, conditioned=False)
    made = generate(bare, codec, prompt=speech, seconds=0.1, settings=SETTINGS)
    assert made.waveform.shape[-1] == 11300
    with pytest.raises(ValueError, match="made without conditioning"):
        generate(bare, codec, like=speech)


def test_names_and_files_in_place_of_objects(model, codec, speech, tmp_path, monkeypatch) -> None:
    expected = generate(model, codec, prompt=speech, seconds=0.1, settings=SETTINGS)
    write_audio(tmp_path / "speech.wav", speech, RATE, subtype="FLOAT")
    folder = model.save_pretrained(tmp_path / "model")
    saved = save_codec(codec, tmp_path / "zoo" / "little")

    def made(*names: object) -> Tensor:
        more = {"prompt": tmp_path / "speech.wav", "seconds": 0.1, "settings": SETTINGS}
        return generate(*names, **more).codes

    assert made(folder, saved).equal(expected.codes)
    with pytest.raises(FileNotFoundError, match="'little' is not in the zoo: pass its folder"):
        made(folder)
    monkeypatch.chdir(tmp_path / "zoo")  # a name in a file is no path
    with pytest.raises(FileNotFoundError, match="codec 'little' is not in the zoo"):
        made(folder)
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path / "zoo"))
    assert made(folder).equal(expected.codes)
    save_codec(make_stft_codec(1, "little", n_codebooks=3, codebook_size=32), saved)
    with pytest.raises(ValueError, match=r"made for codec 'little' \(encoder \w+\), not for"):
        made(folder)


def test_fewer_levels_than_the_codec_has(codec, speech) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"dim": 32, "depth": 1, "heads": 2, "dim_head": 32, "conditioning_dim": 0}
        model = MaskedTransformer.for_codec(codec, n_codebooks=2, **sizes).eval()
    made = generate(model, codec, infill=speech, start=0.2, end=0.3, settings=SETTINGS)
    assert made.codes.shape == (2, 31)
    assert made.codes[:, :10].equal(codec.encode(speech[None])[0, :2, :10])


def test_side_information_comes_from_the_audio() -> None:
    codec = make_encodec("encodec-48k")
    model, speech = make_generator(codec), make_tone(1.3, 0, 8000)
    made = generate(model, codec, infill=speech, start=0.2, end=0.4, settings=SETTINGS)
    [encoded] = codec.encode_batch_with_side([speech])
    heard = codec.decode_batch([made.codes], [speech.shape[-1]], [encoded.side])[0]
    assert made.waveform.equal(heard)
    like = generate(model, codec, like=speech, settings=SETTINGS)
    assert like.waveform.shape == speech.shape
    with pytest.raises(ValueError, match=r"side information.*pass audio as long as the result"):
        generate(model, codec, prompt=speech, seconds=1.0)
    prompt = speech[:, :8000]
    made = generate(model, codec, prompt=prompt, like=speech, settings=SETTINGS)
    assert made.codes[:, :200].equal(codec.encode_batch([prompt])[0][:, :200])  # the first chunk


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of text=, like=, prompt=, infill= and vary="),
        (
            {"prompt": 1, "infill": 1, "start": 0, "end": 0.1},
            "one of text=, like=, prompt=, infill= and vary=",
        ),
        ({"infill": 1}, "go together"),
        ({"prompt": 1, "start": 0.1}, "go together"),
        ({"like": 1, "seconds": 1.0}, "seconds= without prompt="),
        ({"vary": 1, "infill": 1}, "one of text=, like=, prompt=, infill= and vary="),
        ({"like": 1, "keep": 0.5}, "keep= without vary="),
        ({"vary": 1, "keep": 1.5}, r"keep = 1.5: must be in 0\.\.1"),
        ({"like": 1, "window_seconds": 0.0}, "window_seconds = 0.0: must be above 0"),
        ({"like": 1, "window_seconds": 4.0}, "overlap_seconds = 5.0: must be .* less than .* 4.0"),
        ({"prompt": 1, "seconds": 0.0}, "seconds = 0.0: must be above 0"),
        ({"prompt": 1, "seconds": float("inf")}, "seconds = inf: must be above 0 and finite"),
        ({"infill": 1, "start": 0.3, "end": 0.2}, "start = 0.3 to end = 0.2: must start at 0 s"),
        ({"infill": 1, "start": -1.0, "end": 0.2}, "start = -1.0 to end = 0.2: must start at 0 s"),
        ({"like": 1, "seed": -1}, "seed = -1: must be at least 0"),
        ({"infill": 1, "start": 0.3, "end": 9.0}, "within the 0.60625 s"),
        ({"like": 2}, r"like of shape \(2, 9\): expected mono audio"),
        ({"prompt": 0}, r"prompt of shape \(1, 0\): expected mono audio"),
    ],
)
def test_wrong_input_is_refused(given, message, model, codec, speech) -> None:
    audio = {0: torch.zeros(1, 0), 1: speech, 2: torch.zeros(2, 9)}
    given = {
        k: audio[v] if k in ("like", "prompt", "infill", "vary") else v for k, v in given.items()
    }
    with pytest.raises(ValueError, match=message):
        generate(model, codec, **given)


def test_arguments_are_checked_before_a_model_is_loaded(speech) -> None:
    for given in ({"prompt": speech, "seconds": math.nan}, {"like": speech, "seed": -1}):
        with pytest.raises(ValueError, match=r"seconds = nan: must|seed = -1: must"):
            generate("no such model", **given)


def test_a_numpy_array_is_audio_and_is_no_input_of_encode(model, codec, speech) -> None:
    array = speech.reshape(-1).double().numpy()
    made, again = generate(model, codec, like=array), generate(model, codec, like=speech)
    assert made.codes.equal(again.codes)
    with pytest.raises(TypeError, match=r"pass torch.from_numpy\(x\)"):
        codec.encode(array)


def test_stable_audio_encodes_to_the_generated_codes(model, codec, speech) -> None:
    plain = generate(model, codec, prompt=speech, seconds=0.3, settings=SETTINGS)
    made = generate(model, codec, prompt=speech, seconds=0.3, settings=SETTINGS, stable=True)
    assert plain.reached is None and made.reached is not None
    assert torch.equal(made.codes, plain.codes)
    kept = [
        (codec.encode(g.waveform[None])[0] == g.codes).double().mean().item() for g in (plain, made)
    ]
    assert kept[1] == made.reached.kept.item() > kept[0]
    again = (codec.encode(made.waveform[None])[0] == made.codes)[:, :25]
    assert again.double().mean() > 0.99  # the prompt, whose codes are those of real audio


def test_stable_generation_needs_a_codec_that_can() -> None:
    codec = MAKERS["mimi"]()
    model = make_generator(codec, conditioned=False)
    with pytest.raises(ValueError, match="cannot decode stably"):
        generate(model, codec, prompt=make_tone(0.5, 0, codec.spec.sample_rate), stable=True)
