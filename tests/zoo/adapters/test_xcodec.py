"""X-Codec gives the codes and audio of transformers' X-Codec."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import make_xcodec
from tokgen.zoo.adapters.xcodec import XcodecCodec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.registry import ADAPTERS

HOP = 320


@pytest.fixture(scope="module")
def codec() -> XcodecCodec:
    return make_xcodec()


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 8000, 0, 8000)[None]


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 2, 57])
@pytest.mark.parametrize(("bandwidth", "n_levels"), [(0.125, 1), (0.25, 2), (0.5, 4), (None, 4)])
def test_equals_transformers(bandwidth: float | None, n_levels: int, n_frames: int) -> None:
    codec = make_xcodec(bandwidth)
    waveform = tone(n_frames * HOP)
    theirs = codec.model.encode(waveform, bandwidth).audio_codes
    codes = codec.encode(waveform)
    assert codes.shape == (1, n_levels, n_frames)
    assert torch.equal(codes, theirs)
    audio = codec.model.decode(theirs).audio_values
    assert audio.std() > 0.01
    torch.testing.assert_close(codec.decode(codes), audio, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_an_incomplete_frame_is_padded_with_zeros(codec: XcodecCodec) -> None:
    waveform = tone(10 * HOP)
    waveform[..., 9 * HOP + 7 :] = 0
    whole = codec.model.encode(waveform).audio_codes
    assert torch.equal(codec.encode(waveform[..., : 9 * HOP + 7]), whole)


def test_a_level_quantizes_the_residual_of_the_levels_before(codec: XcodecCodec) -> None:
    with torch.no_grad():
        latents = codec.encode_latents(tone(4000))
        projected = codec.project(latents).chunk(4, dim=1)
        rows = codec.codebook_rows(codec.quantize(latents)).chunk(4, dim=1)
    assert torch.equal(projected[0], latents)
    for k in range(3):
        torch.testing.assert_close(projected[k] - rows[k], projected[k + 1])


def test_the_gradient_of_every_projection_reaches_the_latents(codec: XcodecCodec) -> None:
    latents = codec.encode_latents(tone(1000)).detach().requires_grad_()
    codec.project(latents).sum().backward()
    torch.testing.assert_close(latents.grad, torch.full_like(latents, 4))


def test_gradients_pass_the_frozen_semantic_model() -> None:
    codec = make_xcodec()
    width = codec.model.config.acoustic_model_config.hidden_size
    codec.model.fc.weight.data[:, :width] = 0
    waveform = tone(1000).requires_grad_()
    codec.encode_latents(waveform).square().sum().backward()
    assert waveform.grad is not None and waveform.grad.abs().sum() > 0
    assert all(p.grad is None for p in codec.model.semantic_model.parameters())


def test_loads_with_the_requested_bandwidth(codec: XcodecCodec, tmp_path: Path) -> None:
    codec.model.save_pretrained(tmp_path / "mine")
    loaded = load_codec(tmp_path / "mine")
    assert isinstance(loaded, XcodecCodec)
    assert loaded.spec.name == "mine"
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    waveform = tone(3000)
    codes = codec.encode(waveform)
    assert torch.equal(loaded.encode(waveform), codes)
    low = XcodecCodec.from_pretrained(tmp_path / "mine", bandwidth=0.25, name="low", licence="MIT")
    assert (low.spec.n_codebooks, low.spec.bitrate) == (2, 250)
    assert (low.spec.name, low.spec.licence) == ("low", "MIT")
    assert torch.equal(low.encode(waveform), codes[:, :2])
    with pytest.raises(ValueError, match=r"bandwidth 3 kbps: the model has 0.125, 0.25, 0.5"):
        XcodecCodec.from_pretrained(tmp_path / "mine", bandwidth=3.0)


def test_loads_in_a_new_process(codec: XcodecCodec, tmp_path: Path) -> None:
    """transformers imports torchaudio, which fails beside some builds of torch."""
    codec.model.save_pretrained(tmp_path / "mine")
    code = (
        f"from tokgen.zoo.lookup import load_codec; print(load_codec({str(tmp_path / 'mine')!r}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert "8000 Hz, hop 320, 4 x 32" in run.stdout


def test_branches_must_agree_on_the_frame(codec: XcodecCodec) -> None:
    model = make_xcodec().model
    model.config.semantic_model_config.conv_stride = [5, 2, 2, 2, 2, 2, 1]
    with pytest.raises(ValueError, match="a frame every 160 samples, the acoustic one every 320"):
        XcodecCodec.from_model(model)


def test_numbers_of_a_config(codec: XcodecCodec) -> None:
    from transformers import XcodecConfig

    (adapter,) = (w for w in ADAPTERS if w.model_type == "xcodec")
    for config in (XcodecConfig(), codec.model.config):
        numbers = adapter.codec_class().numbers(config.to_dict())
        assert numbers == {
            "sample_rate": config.sample_rate,
            "hop_length": 320,
            "n_codebooks": config.num_quantizers,
            "codebook_size": config.codebook_size,
        }
    assert adapter.codec_class().numbers(XcodecConfig().to_dict())["n_codebooks"] == 8
