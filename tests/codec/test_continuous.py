"""The contract of `ContinuousCodec`, checked for every kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from makers.codecs import noisy_decoder
from makers.continuous import CONTINUOUS, make_continuous
from tokgen.codec.continuous import ContinuousCodec, ContinuousSpec
from tokgen.nn.hashes import hashes_of
from tokgen.zoo.continuous import PretrainedContinuous


@pytest.fixture(scope="module", params=CONTINUOUS)
def codec(request: pytest.FixtureRequest) -> ContinuousCodec:
    return CONTINUOUS[request.param]()


def noise(n_samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(1, 1, n_samples, generator=torch.Generator().manual_seed(seed))


def test_any_length_is_encoded_and_restored(codec: ContinuousCodec) -> None:
    spec, hop = codec.spec, codec.spec.hop_length
    for n in (1, hop - 1, hop, hop + 1, 3 * hop, 70 * hop + 5):
        latents = codec.encode(noise(n))
        assert latents.shape == (1, spec.latent_dim, spec.n_frames(n))
        assert latents.dtype == torch.float32
        decoded = codec.decode(latents, n)
        assert decoded.shape == (1, 1, n) and decoded.isfinite().all()
        assert torch.equal(codec.decode(latents)[..., :n], decoded)
        assert torch.equal(codec.roundtrip(noise(n)), decoded)
    assert codec.decode(latents).shape[-1] == latents.shape[-1] * hop


def test_latents_do_not_depend_on_the_batch(codec: ContinuousCodec) -> None:
    hop = codec.spec.hop_length
    clips = [noise(n, seed=n)[0] for n in (30 * hop + 7, 3, 100 * hop, 12 * hop)]
    alone = [codec.encode(clip[None])[0] for clip in clips]
    batch = codec.encode_batch([clips[0], clips[1][0], *clips[2:]])
    for found, expected in zip(batch, alone, strict=True):
        assert torch.equal(found, expected)
    assert codec.encode_batch([]) == []

    lengths = [clip.shape[-1] for clip in clips]
    dirty = torch.ones(len(clips), 1, max(lengths))
    for row, clip in zip(dirty, clips, strict=True):
        row[:, : clip.shape[-1]] = clip
    latents = codec.encode(dirty, lengths)
    assert latents.shape == (4, codec.spec.latent_dim, 100)
    for found, expected in zip(latents, alone, strict=True):
        assert torch.equal(found[:, : expected.shape[-1]], expected)


def test_the_encoder_hash_is_of_what_the_latents_depend_on(codec: ContinuousCodec) -> None:
    assert isinstance(codec, PretrainedContinuous)
    spec, waveform = codec.spec, noise(20 * codec.spec.hop_length)
    before, decoded = codec.encode(waveform), codec.roundtrip(waveform)
    with noisy_decoder(codec):
        found = hashes_of(codec.model, codec.decoder_parts)
        assert torch.equal(codec.encode(waveform), before)
        assert not torch.equal(codec.roundtrip(waveform), decoded)
    assert found["encoder_hash"] == spec.encoder_hash
    assert len({spec.encoder_hash, spec.weight_hash, found["weight_hash"]}) == 3


def test_gradients_reach_audio_and_latents(codec: ContinuousCodec) -> None:
    hop = codec.spec.hop_length
    clips = torch.cat([noise(20 * hop), noise(20 * hop, 1)])
    clips[1, :, 8 * hop + 1 :] = 0
    audio = clips.clone().requires_grad_()
    latents = codec.encode_latents(audio, [20 * hop, 8 * hop + 1])
    expected = codec.encode(clips, [20 * hop, 8 * hop + 1])
    torch.testing.assert_close(latents[0], expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(latents[1, :, :9], expected[1, :, :9], rtol=0, atol=1e-4)
    decoded = codec.decode_latents(latents)
    assert decoded.shape == (2, 1, 20 * hop)
    gradient = torch.autograd.grad(decoded.square().mean(), audio)[0]
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_long_audio_in_windows_equals_one_window() -> None:
    codec = make_continuous(kernel_size=7, encoder_depth=2, decoder_depth=2)
    audio = noise(320 * 150 + 11)
    codec.window_frames = 1000
    whole = codec.encode(audio)
    decoded = codec.decode(whole, audio.shape[-1])
    codec.window_frames = 40
    assert torch.equal(codec.encode(audio), whole)
    assert torch.equal(codec.decode(whole, audio.shape[-1]), decoded)
    both = codec.encode_batch([audio[0], audio[0, :, : 320 * 90 + 5]])
    assert torch.equal(both[0], whole[0])
    assert torch.equal(both[1], codec.encode(audio[..., : 320 * 90 + 5])[0])


def test_audio_that_cannot_be_encoded() -> None:
    codec = make_continuous()
    with pytest.raises(ValueError, match=r"expected mono \[B, 1, N\]"):
        codec.encode(torch.zeros(2, 2, 640))
    with pytest.raises(ValueError, match="0 samples"):
        codec.encode(torch.zeros(1, 1, 0))
    with pytest.raises(ValueError, match="NaN"):
        codec.encode(torch.full((1, 1, 640), torch.nan))
    with pytest.raises(TypeError, match="int16"):
        codec.encode(torch.zeros(1, 1, 640, dtype=torch.int16))
    with pytest.raises(ValueError, match="lengths"):
        codec.encode(torch.zeros(1, 1, 640), [641])


def test_latents_that_cannot_be_decoded() -> None:
    codec, latents = make_continuous(), torch.zeros(1, 8, 5)
    assert torch.equal(codec.decode(latents.half()), codec.decode(latents))
    with pytest.raises(TypeError, match=r"latents are torch\.int64"):
        codec.decode(latents.long())
    with pytest.raises(TypeError, match="latents are list"):
        codec.decode([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"takes \[B, 8, T\].*; pass latents.mT"):
        codec.decode(latents.mT)
    with pytest.raises(ValueError, match=r"pass latents\[None\]"):
        codec.decode(latents[0])
    with pytest.raises(ValueError, match="at least 1 frame"):
        codec.decode(latents[..., :0])
    with pytest.raises(ValueError, match="NaN or infinity"):
        codec.decode(latents / 0)
    for n in (0, 1601):
        with pytest.raises(ValueError, match=rf"n_samples = {n}: 5 frames hold 1..1600"):
            codec.decode(latents, n)


def test_the_numbers_of_a_spec() -> None:
    spec = make_continuous().spec
    assert (spec.frame_rate, spec.bitrate) == (50, 16 * 8 * 50)
    assert spec.as_dict()["latent_dim"] == 8
    for wrong in ({"latent_dim": 0}, {"hop_length": 2.5}, {"sample_rate": 10**6}):
        numbers = {"sample_rate": 16000, "hop_length": 320, "latent_dim": 8} | wrong
        with pytest.raises(ValueError, match=rf"ContinuousSpec\.{next(iter(wrong))} = "):
            ContinuousSpec.of("x", **numbers)
    assert repr(make_continuous()) == (
        "StftContinuous(tiny-continuous: 16000 Hz, hop 320, 8 latents per frame)"
    )
