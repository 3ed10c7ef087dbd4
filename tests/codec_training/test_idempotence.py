"""The three idempotence losses: values at fixed points, and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import BlockCodec, make_dac, make_encodec, make_stft_codec
from tokgen.codec.base import Codec
from tokgen.codec_training.idempotence import LOSSES, Reencoder, distance


def speech(n_samples: int = 3200, seed: int = 0) -> Tensor:
    """[2, 1, N]"""
    return torch.stack([make_tone(1.0, seed + i)[:, :n_samples] for i in range(2)])


def idempotence_loss(codec: Codec, waveform: Tensor, loss: str) -> Tensor:
    return Reencoder(codec, loss)(waveform).drift


def make(name: str) -> Codec:
    return {
        "stft": make_stft_codec,
        "dac": lambda: make_dac("dac-even"),
        "encodec": lambda: make_encodec("encodec-24k"),
        "block": BlockCodec,
    }[name]()


def test_distance_is_the_norm_of_a_frame_averaged_over_frames():
    a, b = torch.zeros(1, 2, 2), torch.tensor([[[3.0, 0.0], [4.0, 1.0]]])
    assert distance(a, b).item() == pytest.approx((5.0 + 1.0) / 2)


@torch.no_grad()
def test_code_is_zero_where_the_second_encoding_lands_on_the_rows():
    """Encoder and decoder undo each other: any audio is at a fixed point after one pass."""
    assert idempotence_loss(BlockCodec(2.0, 0.5), speech(), "code").item() < 1e-6
    for encoder, decoder in ((2.0, 0.6), (1.9, 0.5), (-2.0, 0.5)):
        assert idempotence_loss(BlockCodec(encoder, decoder), speech(), "code").item() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("loss", ["enc", "proj"])
def test_enc_and_proj_are_zero_only_where_the_audio_itself_is_a_fixed_point(loss):
    codec, audio = BlockCodec(2.0, 0.5), speech()
    assert idempotence_loss(codec, audio, loss).item() > 0.01
    assert idempotence_loss(codec, codec.roundtrip(audio), loss).item() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("name", ["stft", "dac", "encodec"])
def test_losses_are_what_the_stages_say(name):
    codec, audio = make(name), speech()
    first, second = (codec.encode_latents(w) for w in (audio, codec.roundtrip(audio)))
    rows = codec.codebook_rows(codec.quantize(first))
    expected = {
        "enc": distance(second, first),
        "proj": distance(codec.project(second), codec.project(first)),
        "code": distance(codec.project(second), rows),
    }
    for loss, value in expected.items():
        assert value > 0
        torch.testing.assert_close(idempotence_loss(codec, audio, loss), value)


@pytest.mark.parametrize("name", ["stft", "dac", "encodec", "block"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_reaches_encoder_and_decoder_and_never_the_quantizer(name, loss):
    codec = make(name)
    reencoder = Reencoder(codec, loss).train()
    reencoder(speech()).drift.backward()
    reached = {n for n, p in codec.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert not any(n.startswith("quantizer") for n in reached)
    assert not any(p.requires_grad for p in codec.model.quantizer.parameters())
    for part in ("encoder", "decoder"):
        names = {n for n, _ in codec.model.named_parameters() if n.startswith(part)}
        assert len(names & reached) > 0.8 * len(names)
    trained = {id(p) for p in reencoder.parameters() if p.requires_grad}
    assert trained == {
        id(p) for n, p in codec.model.named_parameters() if not n.startswith("quantizer")
    }


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("passes", [1, 2])
def test_a_held_first_encoding_is_taken_as_given(loss, passes):
    """The values stay; encoder and decoder learn as if the first codes were constants."""
    codec = make("stft")
    audio = speech()
    free = Reencoder(codec, loss, passes)(audio)
    held = Reencoder(codec, loss, passes, hold_first=True)(audio)
    torch.testing.assert_close(held.drift, free.drift)
    for a, b in zip(held.waveforms, free.waveforms, strict=True):
        torch.testing.assert_close(a, b)

    with torch.no_grad():
        latents = codec.encode_latents(audio)
        first = codec.quantize_through(latents)
    rows = codec.codebook_rows(first.codes)
    target = {"enc": latents, "proj": first.projected_latents, "code": rows.detach()}[loss]
    quantized, drifts = first.quantized, []
    for _ in range(passes):
        again = codec.encode_latents(codec.decode_latents(quantized)[..., : audio.shape[-1]])
        latest = codec.quantize_through(again)
        quantized = latest.quantized
        drifts.append(distance(again if loss == "enc" else latest.projected_latents, target))
    parameters = [p for p in codec.model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(torch.stack(drifts).mean(), parameters, allow_unused=True)
    found = torch.autograd.grad(held.drift, parameters, allow_unused=True)
    through = torch.autograd.grad(free.drift, parameters, allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert any(
        not torch.allclose(a, b) for a, b in zip(found, through, strict=True) if a is not None
    )


@pytest.mark.parametrize("name", ["stft", "block"])
def test_dropout_of_levels_is_off(name):
    reencoder = Reencoder(make(name), "code").train()
    with torch.no_grad():
        outputs = [reencoder(speech()).waveforms[0] for _ in range(4)]
    assert all(o.equal(outputs[0]) for o in outputs)
    torch.testing.assert_close(outputs[0], make(name).roundtrip(speech()))


@torch.no_grad()
def test_unrolled_passes_are_repeated_encodings(tiny_codec):
    audio = speech()
    out = Reencoder(make_stft_codec(), "code", passes=3)(audio)
    heard = audio
    losses = []
    rows = tiny_codec.codebook_rows(tiny_codec.encode(audio))
    for waveform in out.waveforms:
        heard = tiny_codec.roundtrip(heard)
        torch.testing.assert_close(waveform, heard)
        losses.append(distance(tiny_codec.project(tiny_codec.encode_latents(heard)), rows))
    assert len(losses) == 3
    torch.testing.assert_close(out.drift, torch.stack(losses).mean())


def test_drifted_passes_come_before_and_carry_no_gradient(tiny_codec):
    reencoder = Reencoder(make_stft_codec(), "code")
    audio = speech().requires_grad_()
    later = reencoder(audio, drifted=2)
    direct = reencoder(tiny_codec.roundtrip(tiny_codec.roundtrip(audio)))
    torch.testing.assert_close(later.waveforms[0], direct.waveforms[0])
    torch.testing.assert_close(later.drift, direct.drift)
    later.drift.backward()
    assert audio.grad is None


def test_a_few_steps_lower_the_loss():
    codec = make_stft_codec()
    reencoder, audio = Reencoder(codec, "code"), speech(8000)
    optimizer = torch.optim.Adam(reencoder.parameters(), lr=2e-3)
    before = reencoder(audio).drift.item()
    for _ in range(30):
        optimizer.zero_grad()
        reencoder(audio).drift.backward()
        optimizer.step()
    assert reencoder(audio).drift.item() < 0.8 * before


def test_wrong_settings_are_refused(tiny_codec):
    with pytest.raises(ValueError, match="loss 'latent': known are enc, proj, code"):
        Reencoder(tiny_codec, "latent")
    with pytest.raises(ValueError, match="passes = 0: must be at least 1"):
        Reencoder(tiny_codec, "code", passes=0)
    with pytest.raises(ValueError, match="does not expose its stages"):
        Reencoder(make_encodec("encodec-48k"))
    bare = BlockCodec()
    bare.model.quantizer = None
    with pytest.raises(ValueError, match="has no quantizer module to freeze"):
        Reencoder(bare)
