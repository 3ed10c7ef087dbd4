"""The idempotence losses: values at fixed points, and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from makers.audio import codec_tone, make_tone
from makers.codecs import MAKERS, BlockCodec, make_dac, make_encodec, make_stft_codec
from tokgen.codec.base import Codec
from tokgen.codec.stable.settings import StableDecoding
from tokgen.codec.stable.targets import CodeTargets
from tokgen.codec_training.idempotence import Reencoder, distance, rotate
from tokgen.codec_training.settings import LOSSES, PAPER_LOSSES


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
        "block": lambda: BlockCodec(2.0, 0.6),
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


@pytest.mark.parametrize(
    ("name", "loss"),
    [(name, loss) for name in ("stft", "dac", "encodec") for loss in LOSSES]
    + [("block", loss) for loss in PAPER_LOSSES],  # it has no levels
)
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


@pytest.mark.parametrize("name", ["bigcodec", "wavtokenizer", "xcodec"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_reaches_all_but_a_quantizer_that_lies_elsewhere(name, loss):
    codec = MAKERS[name]()
    Reencoder(codec, loss).train()(speech()).drift.backward()
    frozen = parameters_of(codec.quantizer_modules())
    encoder = parameters_of(codec.encoder_modules())
    trained = {id(p) for p in codec.model.parameters() if p.requires_grad}
    reached = {id(p) for p in codec.model.parameters() if p.grad is not None and p.grad.any()}
    assert not frozen & trained and reached <= trained
    for part in (encoder & trained, trained - encoder):
        assert len(part & reached) > 0.8 * len(part) > 0


@pytest.mark.parametrize("name", ["bigcodec", "wavtokenizer", "xcodec"])
def test_an_encoder_that_lies_elsewhere_is_frozen_whole(name):
    codec = MAKERS[name]()
    audio = codec_tone(codec, 4000)
    latents = codec.encode_latents(audio)
    Reencoder(codec, "margin", freeze_encoder=True)(audio).drift.backward()
    with torch.no_grad():
        for weight in codec.model.parameters():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad
    assert torch.equal(codec.encode_latents(audio), latents)
    assert any(p.grad is not None and p.grad.any() for p in codec.model.parameters())


def parameters_of(modules) -> set[int]:
    return {id(p) for module in modules for p in module.parameters()}


@pytest.mark.parametrize("loss", PAPER_LOSSES)
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


@pytest.mark.parametrize("name", ["stft", "dac", "encodec"])
def test_margin_is_the_loss_of_stable_decoding_with_the_first_codes(name):
    codec, audio, settings = make(name), speech(), StableDecoding()
    found = Reencoder(codec, "margin")(audio)
    with torch.no_grad():
        codes = codec.quantize(codec.encode_latents(audio))
        again = codec.encode_latents(codec.roundtrip(audio))
    targets = CodeTargets(codec.search_levels(), codes)
    missing, margin = targets.compare(again, settings.margin, settings.temperature)
    torch.testing.assert_close(found.drift, missing.mean(), rtol=1e-4, atol=1e-6)
    right = (margin > 0).long().cumprod(1).double().mean()
    assert 0 < right <= found.match.item() + 1e-6  # a wrong level changes those after it


@pytest.mark.parametrize("hold_first", [False, True])
def test_a_frozen_encoder_leaves_the_gradient_to_the_decoder(hold_first, monkeypatch):
    """The first codes are constants then, so `hold_first` changes nothing and decodes no more."""
    codec, audio = make("stft"), speech()
    decoded = []
    decode = codec.decode_latents
    monkeypatch.setattr(codec, "decode_latents", lambda x: decoded.append(x) or decode(x))
    frozen = Reencoder(codec, "margin", hold_first=hold_first, freeze_encoder=True)
    found = frozen(audio)
    assert len(decoded) == 1
    found.drift.backward()
    reached = {n.split(".")[0] for n, p in codec.model.named_parameters() if p.grad is not None}
    assert reached == {"decoder"}
    free = Reencoder(make("stft"), "margin", hold_first=True)
    expected = free(audio).drift
    torch.testing.assert_close(found.drift, expected)
    expected.backward()
    for a, b in zip(codec.model.decoder.parameters(), free.model.decoder.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_codec_without_an_encoder_module_cannot_freeze_it():
    bare = BlockCodec()
    bare.model.encoder = None
    with pytest.raises(ValueError, match="no encoder module to freeze; set it to false"):
        Reencoder(bare, freeze_encoder=True)
    bare.model.quantizer = None
    with pytest.raises(ValueError, match=r"no quantizer module.*quantizer_modules, or use tokgen"):
        Reencoder(bare)


def test_margin_needs_levels():
    with pytest.raises(ValueError, match=r"'margin'.*use enc, proj, code"):
        Reencoder(make("block"), "margin")


def stages(codec: Codec, audio: Tensor, *, held: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Projected latents of the first and the second encoding, and the first codebook rows."""
    first = codec.quantize_through(codec.encode_latents(audio))
    quantized = first.quantized.detach() if held else first.quantized
    output = codec.decode_latents(quantized)[..., : audio.shape[-1]]
    second = codec.quantize_through(codec.encode_latents(output))
    rows = codec.codebook_rows(first.codes).detach()
    return first.projected_latents, second.projected_latents, rows


@pytest.mark.parametrize("name", ["stft", "dac", "encodec"])
@pytest.mark.parametrize("form", ["paper", "detach_target", "hold_first"])
def test_gradient_of_code_equals_a_hand_computation(name, form):
    """d|a - b| = (a - b) / |a - b| (da - db), with db the gradient of the projected latents."""
    codec, audio = make(name), speech()
    switches = {} if form == "paper" else {form: True}
    reencoder = Reencoder(codec, "code", **switches)
    parameters = [p for p in codec.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(reencoder(audio).drift, parameters, allow_unused=True)

    first, second, rows = stages(codec, audio, held=form == "hold_first")
    difference = (second - rows).detach()
    n_vectors = difference.shape[0] * difference.shape[2]
    direction = difference / difference.norm(dim=1, keepdim=True) / n_vectors
    surrogate = (direction * second).sum()
    if form == "paper":  # straight through the rows
        surrogate = surrogate - (direction * first).sum()
    expected = torch.autograd.grad(surrogate, parameters, allow_unused=True)
    n_reached = 0
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()) + 1e-7)
            n_reached += 1
    assert n_reached > 4


@pytest.mark.parametrize("loss", PAPER_LOSSES)
def test_forms_have_the_same_value_and_other_gradients(loss):
    codec, audio = make("stft"), speech()
    parameters = [p for n, p in codec.model.named_parameters() if n.startswith("encoder")]
    values, gradients = [], []
    for form in ({}, {"detach_target": True}, {"hold_first": True}):
        drift = Reencoder(codec, loss, **form)(audio).drift
        values.append(drift.item())
        gradients.append(torch.autograd.grad(drift, parameters))
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        pairs = zip(gradients[a], gradients[b], strict=True)
        assert not all(torch.allclose(x, y, rtol=1e-2) for x, y in pairs)
    both = Reencoder(codec, loss, detach_target=True, hold_first=True)(audio).drift
    for x, y in zip(torch.autograd.grad(both, parameters), gradients[2], strict=True):
        torch.testing.assert_close(x, y)  # hold_first stops both


@torch.no_grad()
def test_rotate_moves_each_item_and_is_undone():
    audio = torch.arange(10.0).view(2, 1, 5)
    moved = rotate(audio, torch.tensor([1, -2]))
    assert moved[:, 0].tolist() == [[4, 0, 1, 2, 3], [7, 8, 9, 5, 6]]
    assert rotate(moved, torch.tensor([-1, 2])).equal(audio)


@torch.no_grad()
@pytest.mark.parametrize("loss", PAPER_LOSSES)
def test_shifted_passes_are_compared_with_encodings_of_the_audio_moved_alike(loss):
    codec, audio = make("stft"), speech()
    shifts = torch.tensor([[37, -61], [-100, 5], [12, 0]])
    out = Reencoder(codec, loss, passes=2)(audio, drifted=1, shifts=shifts)
    # The drifted pass undoes its move.
    start = rotate(codec.roundtrip(rotate(audio, shifts[0])), -shifts[0])
    one = codec.roundtrip(start)
    two = codec.roundtrip(rotate(one, shifts[1]))
    torch.testing.assert_close(out.waveforms[0], one)
    torch.testing.assert_close(out.waveforms[1], two)
    assert out.offsets.tolist() == [[0, 0], [-100, 5]]

    offset, drifts = torch.zeros(2, dtype=torch.long), []
    for waveform, move in ((one, shifts[1]), (two, shifts[2])):
        offset = offset + move
        again = codec.encode_latents(rotate(waveform, move))
        target = codec.encode_latents(rotate(start, offset))
        if loss == "code":
            pair = codec.project(again), codec.codebook_rows(codec.quantize(target))
        else:
            pair = (
                (again, target) if loss == "enc" else (codec.project(again), codec.project(target))
            )
        drifts.append(distance(*pair))
    torch.testing.assert_close(out.drift, torch.stack(drifts).mean())


@torch.no_grad()
def test_shifts_by_whole_frames_change_little_and_none_is_the_loss_without():
    codec, audio = make("block"), speech()  # every frame is coded alone
    plain = Reencoder(codec, "code", passes=2)(audio)
    for frames in (0, 3):
        shifts = torch.full((2, 2), frames * codec.spec.hop_length)
        out = Reencoder(codec, "code", passes=2)(audio, shifts=shifts)
        torch.testing.assert_close(out.drift, plain.drift)
        torch.testing.assert_close(out.match, plain.match)


def test_shifted_targets_obey_the_switches():
    codec, audio = make("stft"), speech()
    parameters = [p for n, p in codec.model.named_parameters() if n.startswith("encoder")]
    shifts = torch.tensor([[37, -61]])
    for held in (False, True):
        drift = Reencoder(codec, "proj", hold_first=held)(audio, shifts=shifts).drift
        found = torch.autograd.grad(drift, parameters)
        first = codec.quantize_through(codec.encode_latents(audio)).quantized
        output = codec.decode_latents(first.detach() if held else first)[..., : audio.shape[-1]]
        again, target = (
            codec.quantize_through(codec.encode_latents(rotate(w, shifts[0]))).projected_latents
            for w in (output, audio)
        )
        value = distance(again, target.detach() if held else target)
        for a, b in zip(found, torch.autograd.grad(value, parameters), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("passes", [1, 3])
def test_without_a_loss_the_drift_is_zero_and_the_outputs_are_the_same(passes):
    codec, audio = make("stft"), speech()
    none, code = (Reencoder(codec, loss, passes)(audio) for loss in ("none", "code"))
    assert none.drift == 0 and not none.drift.requires_grad
    for a, b in zip(none.waveforms, code.waveforms, strict=True):
        torch.testing.assert_close(a, b)
    assert none.match == code.match
    none.waveforms[-1].sum().backward()  # later outputs carry gradient
    assert any(p.grad is not None and p.grad.any() for p in codec.model.encoder.parameters())


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
