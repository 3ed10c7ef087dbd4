"""X-Codec2 and NeuCodec give the codes and audio of transformers' models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tokgen.zoo.adapters.xcodec2 as module
from makers.audio import make_tone
from makers.codecs import MAKERS, make_xcodec2
from tokgen.audio.resampling import resample
from tokgen.zoo.adapters.xcodec2 import EXTRACTOR_CONFIG, NeuCodecCodec, Xcodec2Codec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.registry import ADAPTERS
from tokgen.zoo.transformers_loading import from_transformers


@pytest.fixture(scope="module", params=["xcodec2", "neucodec"])
def codec(request: pytest.FixtureRequest) -> Xcodec2Codec:
    return MAKERS[request.param]()  # type: ignore[return-value]


@pytest.fixture(scope="module")
def xcodec2() -> Xcodec2Codec:
    return make_xcodec2(Xcodec2Codec)


@pytest.fixture(scope="module")
def neucodec() -> Xcodec2Codec:
    return make_xcodec2(NeuCodecCodec)


def tone(n_samples: int, sample_rate: int) -> Tensor:
    return make_tone(n_samples / sample_rate, 0, sample_rate)[None]


def features(codec: Xcodec2Codec, audio: Tensor) -> dict[str, Tensor]:
    """Return the features that a new extractor computes for audio [N] at its input rate."""
    extractor = from_transformers(codec.extractor_class)(sampling_rate=8000)
    return extractor(audio, sampling_rate=8000, return_tensors="pt")


@torch.inference_mode()
@pytest.mark.parametrize("n", [1, 319, 320, 321, 640, 9999, 57 * 320])
def test_xcodec2_equals_transformers(xcodec2: Xcodec2Codec, n: int) -> None:
    waveform = tone(n, 8000)
    theirs = xcodec2.model(**features(xcodec2, waveform[0, 0]))
    codes = xcodec2.encode(waveform)
    n_frames = -(-n // 320)
    assert codes.shape == (1, 1, n_frames)
    assert torch.equal(codes, theirs.audio_codes[..., :n_frames])  # theirs can have one more
    audio = xcodec2.decode(theirs.audio_codes)[..., :n]
    torch.testing.assert_close(audio, theirs.audio_values[..., :n], atol=1e-4, rtol=0)
    ours = xcodec2.model.decode(audio_codes=codes).audio_values
    torch.testing.assert_close(xcodec2.decode(codes), ours, atol=1e-4, rtol=0)
    assert n < 640 or ours.std() > 0.01


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 2, 57])
def test_neucodec_equals_transformers(neucodec: Xcodec2Codec, n_frames: int) -> None:
    waveform = tone(n_frames * 480, 12000)
    audio = resample(waveform[0, 0], 12000, 8000)
    theirs = neucodec.model(**features(neucodec, audio))
    codes = neucodec.encode(waveform)
    assert codes.shape == (1, 1, n_frames)
    assert torch.equal(codes, theirs.audio_codes)
    audio = neucodec.decode(codes)
    assert n_frames < 3 or audio.std() > 0.01
    torch.testing.assert_close(audio, theirs.audio_values, atol=1e-4, rtol=0)


def test_neucodec_pads_an_incomplete_frame_with_zeros(neucodec: Xcodec2Codec) -> None:
    waveform = tone(10 * 480, 12000)
    waveform[..., 9 * 480 + 7 :] = 0
    assert torch.equal(neucodec.encode(waveform[..., : 9 * 480 + 7]), neucodec.encode(waveform))


def test_neucodec_resamples_only_its_input_and_only_once(
    neucodec: Xcodec2Codec, xcodec2: Xcodec2Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def counted(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
        calls.append((from_rate, to_rate))
        return resample(waveform, from_rate, to_rate)

    monkeypatch.setattr(module, "resample", counted)
    codes = neucodec.encode(tone(5000, 12000))
    assert calls == [(12000, 8000)]
    neucodec.decode(codes)
    assert len(calls) == 1
    neucodec.encode_batch([tone(n, 12000)[0] for n in (700, 5000, 30)])
    assert len(calls) == 1 + 3
    neucodec.roundtrip(tone(5000, 12000))
    assert len(calls) == 1 + 3 + 1
    xcodec2.roundtrip(tone(5000, 8000))
    assert len(calls) == 5


def test_neucodec_keeps_the_pitch_when_it_resamples(
    neucodec: Xcodec2Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 Hz at the spec's rate is 500 Hz at the extractor's rate."""
    inputs: list[Tensor] = []
    extract = neucodec.extractor

    def record(audio: Tensor, **settings: object) -> object:
        inputs.append(audio)
        return extract(audio, **settings)

    record.sampling_rate = extract.sampling_rate  # type: ignore[attr-defined]
    monkeypatch.setattr(neucodec, "extractor", record)
    t = torch.arange(12000) / 12000
    neucodec.encode(torch.sin(2 * torch.pi * 500 * t)[None, None])
    (audio,) = inputs
    assert len(audio) == 8000
    assert torch.fft.rfft(audio).abs().argmax() == 500


def test_code_vectors_are_the_quantizer_s_grid(codec: Xcodec2Codec) -> None:
    (vectors,) = codec.code_vectors()
    assert vectors.shape == (65536, 8)
    assert len(vectors.unique(dim=0)) == 65536
    codes = codec.encode(tone(9000, codec.spec.sample_rate))
    with torch.no_grad():
        ours = codec.model.quantizer.project_out(vectors[codes[0, 0]])
        theirs = codec.model.quantizer.from_codes(codes.mT)
    torch.testing.assert_close(ours[None], theirs)


def test_saves_and_loads(codec: Xcodec2Codec, tmp_path: Path) -> None:
    codec.model.save_pretrained(tmp_path / "mine")
    loaded = load_codec(tmp_path / "mine")
    assert type(loaded) is type(codec)
    codec.extractor.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / EXTRACTOR_CONFIG).is_file()
    loaded = type(codec).from_pretrained(tmp_path / "mine", licence="MIT")
    assert loaded.spec.name == "mine"
    assert loaded.spec.licence == "MIT"
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    waveform = tone(3000, codec.spec.sample_rate)
    assert torch.equal(loaded.encode(waveform), codec.encode(waveform))
    wrong = "neucodec" if codec.spec.name == "xcodec2" else "xcodec2"
    with pytest.raises(ValueError, match=f"is of a '{codec.spec.name}', not a '{wrong}'"):
        type(MAKERS[wrong]()).from_pretrained(tmp_path / "mine")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"sampling_rate": 44100, "hop_length": 320}), "sampling_rate = 44100, but"),
        (json.dumps({"sampling_rate": 8000, "hop_length": 160}), "hop_length = 160, but"),
        ("{", "cannot be read"),
        ("[]", "holds a list, not settings"),
    ],
)
def test_features_of_another_model_are_refused(
    xcodec2: Xcodec2Codec, tmp_path: Path, text: str, message: str
) -> None:
    xcodec2.model.save_pretrained(tmp_path)
    (tmp_path / EXTRACTOR_CONFIG).write_text(text)
    with pytest.raises(ValueError, match=message):
        Xcodec2Codec.from_pretrained(tmp_path)


def test_frames_must_have_the_length_of_the_features() -> None:
    model = make_xcodec2(Xcodec2Codec).model
    model.config.downsampling_ratios = [2, 2, 4, 4, 4]
    with pytest.raises(ValueError, match="frames of 256 samples, the feature extractor frames of"):
        Xcodec2Codec.from_model(model)


@pytest.mark.parametrize(
    ("model_type", "sample_rate", "hop_length"),
    [("xcodec2", 16000, 320), ("neucodec", 24000, 480)],
)
def test_numbers_of_a_published_config(model_type: str, sample_rate: int, hop_length: int) -> None:
    (adapter,) = (w for w in ADAPTERS if w.model_type == model_type)
    config = from_transformers(adapter.codec_class().model_class).config_class()
    assert adapter.codec_class().numbers(config.to_dict()) == {
        "sample_rate": sample_rate,
        "hop_length": hop_length,
        "n_codebooks": 1,
        "codebook_size": 65536,
    }
    assert config.hop_length == hop_length
