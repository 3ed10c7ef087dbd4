"""DAC gives the codes and audio of transformers' DAC."""

from __future__ import annotations

import copy

import pytest
import torch

from makers.audio import codec_tone
from makers.codecs import DAC_STRIDES, make_dac, make_variable_dac
from tokgen.zoo.adapters.dac import DacCodec, _zero_past_end


@pytest.fixture(scope="module", params=DAC_STRIDES)
def dac(request: pytest.FixtureRequest) -> DacCodec:
    return make_dac(request.param)


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 2, 57])
def test_equals_transformers(dac: DacCodec, n_frames: int) -> None:
    waveform = codec_tone(dac, n_frames * dac.spec.hop_length)
    theirs = dac.model.encode(waveform)
    audio = dac.model.decode(audio_codes=theirs.audio_codes).audio_values
    codes = dac.encode(waveform)
    assert torch.equal(codes, theirs.audio_codes)
    ours = dac.decode(codes)[:, 0, : audio.shape[-1]]
    torch.testing.assert_close(ours, audio, atol=1e-4, rtol=0)
    projected = dac.project(dac.encode_latents(waveform))
    torch.testing.assert_close(projected, theirs.projected_latents)
    torch.testing.assert_close(dac.dequantize(codes), theirs.quantized_representation)


def test_windows_change_nothing(dac: DacCodec) -> None:
    waveform = codec_tone(dac, dac.spec.sample_rate // 4 + 3)
    codes = dac.encode(waveform)
    audio = dac.decode(codes)
    before = dac.window_frames, dac.whole_frames
    dac.whole_frames = 0
    try:
        for dac.window_frames in (1, 13, 32):
            assert torch.equal(dac.encode(waveform), codes)
            torch.testing.assert_close(dac.decode(codes), audio, atol=1e-5, rtol=0)
    finally:
        dac.window_frames, dac.whole_frames = before


def test_reach_is_exact(dac: DacCodec) -> None:
    """A frame's gradient reaches the first and the last frame of its reach, and none beyond."""
    hop, middle, size = dac.spec.hop_length, 60, 121
    network = copy.deepcopy(dac.model).double()  # some gradients are tiny
    waveform = codec_tone(dac, size * hop).double().requires_grad_()
    network.encoder(waveform)[..., middle].square().sum().backward()
    assert waveform.grad is not None
    frames = waveform.grad[0, 0].nonzero()[:, 0] // hop - middle
    assert (-frames.min(), frames.max()) == (dac.encoder_reach.before, dac.encoder_reach.after)
    quantized = dac.dequantize(dac.encode(waveform.detach().float()))
    quantized = quantized.detach().double().requires_grad_()
    audio = network.decoder(quantized)[..., middle * hop : (middle + 1) * hop]
    audio.square().sum().backward()
    assert quantized.grad is not None
    frames = quantized.grad.abs().amax((0, 1)).nonzero()[:, 0] - middle
    assert (-frames.min(), frames.max()) == (dac.decoder_reach.before, dac.decoder_reach.after)


def test_a_gpu_s_batch_equals_one_by_one(dac: DacCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masked pass, which a CPU does not use by itself."""
    lengths = [1, 333, 2 * dac.spec.hop_length, 5000]
    batch = torch.cat([codec_tone(dac, 5000, seed) for seed in range(4)])
    frames = torch.tensor([dac.spec.n_frames(n) for n in lengths])
    clean = batch.clone()
    for item, n in zip(clean, lengths, strict=True):
        item[:, n:] = 0
    with torch.inference_mode():
        with _zero_past_end(dac.model.encoder, frames, int(frames.max())):
            latents = dac.encode_latents(clean)
        monkeypatch.setattr(dac, "_together", lambda *_: True)
        codes = dac.encode(batch, lengths=lengths)
        monkeypatch.undo()
        for i, n in enumerate(lengths):
            alone = dac.encode_latents(batch[i : i + 1, :, :n])
            torch.testing.assert_close(latents[i : i + 1, :, : frames[i]], alone)
            same = codes[i, :, : frames[i]] == dac.encode(batch[i : i + 1, :, :n])[0]
            assert same.float().mean() > 0.99
    assert not any(m._forward_pre_hooks for m in dac.model.encoder.modules())


def test_a_gpu_s_batch_has_the_importance_of_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, lengths = make_variable_dac(), [400, 2333, 5000]
    batch = torch.cat([codec_tone(codec, 5000, seed) for seed in range(3)])
    monkeypatch.setattr(codec, "_together", lambda *_: True)
    together = codec.encode_with_importance(batch, lengths).side["importance"]
    for i, n in enumerate(lengths):
        alone = codec.encode_with_importance(batch[i : i + 1, :, :n]).side["importance"][0]
        torch.testing.assert_close(together[i, : len(alone)], alone, atol=1e-4, rtol=0)
