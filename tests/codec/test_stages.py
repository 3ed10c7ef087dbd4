"""Codecs with stages: the stages add up to encode and decode, and pass gradients."""

from __future__ import annotations

import pytest
import torch

from makers.audio import codec_tone
from makers.codecs import CLOSED, MAKERS
from tokgen.codec.stages import StagedCodec, check_stages


@pytest.fixture(scope="module", params=["tiny", *(name for name in MAKERS if name not in CLOSED)])
def codec(request: pytest.FixtureRequest) -> StagedCodec:
    """A codec with stages. Codecs of variable bitrate have all levels."""
    if request.param == "tiny":
        return request.getfixturevalue("tiny_codec")
    if "variable" in request.param:
        return MAKERS[request.param](None)
    return MAKERS[request.param]()


@torch.inference_mode()
def test_stages_add_up_to_encode_and_decode(codec: StagedCodec) -> None:
    spec, waveform = codec.spec, codec_tone(codec, 4000)
    codes = codec.encode(waveform)
    latents = codec.encode_latents(waveform)
    assert torch.equal(codec.quantize(latents), codes)
    vectors = codec.code_vectors()
    assert vectors is not None
    d = vectors.shape[-1]
    assert vectors.shape == (spec.n_codebooks, spec.codebook_size, d)
    rows = codec.codebook_rows(codes)
    assert codec.project(latents).shape == rows.shape == (1, spec.n_codebooks * d, codes.shape[-1])
    for k in range(spec.n_codebooks):
        assert torch.equal(rows[0, k * d : (k + 1) * d].mT, vectors[k][codes[0, k]])
    audio = codec.decode_latents(codec.dequantize(codes))
    assert audio.shape == (1, 1, codes.shape[-1] * spec.hop_length)
    torch.testing.assert_close(audio[..., :4000], codec.decode(codes, 4000))


def test_stages_let_gradients_through(codec: StagedCodec) -> None:
    waveform = codec_tone(codec, 2000).requires_grad_()
    codec.decode_latents(codec.encode_latents(waveform)).square().sum().backward()
    assert waveform.grad is not None and waveform.grad.abs().sum() > 0


@torch.no_grad()
def test_commitment_loss_is_a_sum_over_levels(codec: StagedCodec) -> None:
    latents = codec.encode_latents(codec_tone(codec, 4000))
    out = codec.quantize_through(latents)
    errors = (out.projected_latents - codec.codebook_rows(out.codes)).square()
    per_level = errors.unflatten(1, (codec.spec.n_codebooks, -1)).mean((0, 2, 3))
    torch.testing.assert_close(out.commitment_loss, per_level.sum())


@torch.no_grad()
def test_the_quantizer_ignores_autocast(codec: StagedCodec) -> None:
    """bfloat16 would change some codes."""
    latents = codec.encode_latents(codec_tone(codec, 8000))
    codes, projected = codec.quantize(latents), codec.project(latents)
    expected, quantized = codec.quantize_through(latents), codec.dequantize(codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert (latents @ latents.mT).dtype == torch.bfloat16  # autocast is on
        assert torch.equal(codec.quantize(latents), codes)
        assert torch.equal(codec.project(latents), projected)
        assert torch.equal(codec.dequantize(codes), quantized)
        found = codec.quantize_through(latents)
        assert codec.quantize_through(latents.bfloat16()).quantized.dtype == torch.float32
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name), value), name


@pytest.mark.parametrize("name", sorted(CLOSED))
def test_codecs_without_stages_are_refused(name: str) -> None:
    codec = MAKERS[name]()
    assert not hasattr(codec, "encode_latents")
    with pytest.raises(ValueError, match=r"does not expose its stages.*DAC"):
        check_stages(codec)


def test_codecs_with_stages_pass_the_check(tiny_codec: StagedCodec) -> None:
    assert check_stages(tiny_codec) is tiny_codec
