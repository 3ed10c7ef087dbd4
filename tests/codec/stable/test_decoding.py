"""Stable decoding: the codes come back, in windows as in one piece, and reports are true."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import MAKERS, make_stft_codec
from tokgen.codec.stable.decoding import decode_stable
from tokgen.codec.stable.settings import StableDecoding
from tokgen.zoo.stft import StftCodec

SEARCHED = ("dac-even", "encodec-24k", "speechtokenizer", "xcodec", "bigcodec", "wavtokenizer")


@pytest.fixture(scope="module")
def tone() -> Tensor:
    return make_tone(1.3, seed=3)[None]


def test_all_codes_come_back(tiny_codec: StftCodec, tone: Tensor) -> None:
    codes = tiny_codec.encode(tone)
    plain = tiny_codec.decode(codes, tone.shape[-1])
    assert (tiny_codec.encode(plain) == codes).double().mean() < 0.9

    waveform, reached = tiny_codec.decode(codes, tone.shape[-1], stable=True)

    assert waveform.shape == plain.shape and waveform.dtype == torch.float32
    assert torch.equal(tiny_codec.encode(waveform), codes)
    assert reached.kept.tolist() == [1.0] and reached.survived["int16"].tolist() == [1.0]
    assert 0 < reached.steps.item() <= 40
    change = (waveform - plain).square().sum()
    snr = 10 * math.log10(plain.square().sum() / change)
    assert reached.snr_db.item() == pytest.approx(snr, abs=1e-3)


def test_audio_is_in_16_bit_steps(tiny_codec: StftCodec, tone: Tensor) -> None:
    codes = tiny_codec.encode(tone)
    rounded, _ = tiny_codec.decode(codes, stable=True)
    steps = rounded * 32768
    assert torch.equal(steps, steps.round()) and steps.min() >= -32768 and steps.max() <= 32767
    free, _ = tiny_codec.decode(codes, stable=StableDecoding(robust_to=()))
    assert not torch.equal(free * 32768, (free * 32768).round())


def test_audio_that_is_stable_already_takes_no_steps_and_stays(
    tiny_codec: StftCodec, tone: Tensor
) -> None:
    codes = tiny_codec.encode(tone)
    first, _ = tiny_codec.decode(codes, tone.shape[-1], stable=True)
    for seconds in (0.4, 8.0):
        settings = StableDecoding(window_seconds=seconds)
        second, reached = decode_stable(tiny_codec, codes, first, settings)
        assert torch.equal(second, first)
        assert reached.steps.item() == 0 and reached.kept.item() == 1
        assert reached.snr_db.item() == math.inf


def test_stable_decoding_is_a_fixed_point(tiny_codec: StftCodec, tone: Tensor) -> None:
    heard = tone
    passes = []
    for _ in range(3):
        heard, _ = tiny_codec.decode(tiny_codec.encode(heard), tone.shape[-1], stable=True)
        passes.append(heard)
    assert torch.equal(passes[1], passes[0]) and torch.equal(passes[2], passes[0])


def test_no_steps_leave_the_audio_as_it_was_decoded(tiny_codec: StftCodec, tone: Tensor) -> None:
    codes = tiny_codec.encode(tone)
    settings = StableDecoding(steps=0, robust_to=())
    unchanged, reached = tiny_codec.decode(codes, tone.shape[-1], stable=settings)
    plain = tiny_codec.decode(codes, tone.shape[-1])
    assert torch.equal(unchanged, plain)
    assert reached.steps.item() == 0 and reached.snr_db.item() == math.inf
    assert reached.kept.item() == (tiny_codec.encode(plain) == codes).double().mean()


def test_silence_that_was_not_changed_has_an_infinite_ratio(tiny_codec: StftCodec) -> None:
    silence = torch.zeros(1, 1, 3200)
    codes = tiny_codec.encode(silence)
    _, reached = decode_stable(tiny_codec, codes, silence, StableDecoding())
    assert reached.steps.item() == 0 and reached.snr_db.item() == math.inf


def test_items_do_not_depend_on_their_batch(tiny_codec: StftCodec) -> None:
    batch = torch.stack([make_tone(0.6, seed=seed) for seed in range(3)])
    codes = tiny_codec.encode(batch)
    together, reached = tiny_codec.decode(codes, stable=True)
    for i in (2, 0):
        alone, one = tiny_codec.decode(codes[i : i + 1], stable=True)
        assert torch.equal(alone[0], together[i])
        assert one.steps[0] == reached.steps[i] and one.snr_db[0] == reached.snr_db[i]


def test_windows_keep_the_codes_that_one_piece_keeps(tiny_codec: StftCodec) -> None:
    audio = make_tone(4.3, seed=5)[None]
    codes = tiny_codec.encode(audio)
    for seconds in (0.2, 1.0, 10.0):
        settings = StableDecoding(window_seconds=seconds)
        waveform, reached = tiny_codec.decode(codes, audio.shape[-1], stable=settings)
        assert torch.equal(tiny_codec.encode(waveform), codes), seconds
        assert reached.kept.item() == 1


def test_coarse_levels_come_back(tiny_codec: StftCodec, tone: Tensor) -> None:
    codes = tiny_codec.encode(tone, n_codebooks=2)
    waveform, reached = tiny_codec.decode(codes, tone.shape[-1], stable=True)
    assert torch.equal(tiny_codec.encode(waveform, n_codebooks=2), codes)
    assert reached.kept.item() == 1


def test_an_unreachable_target_ends_with_the_best_and_says_so(tiny_codec: StftCodec) -> None:
    noise = torch.Generator().manual_seed(0)
    codes = torch.randint(60, (1, 4, 40), generator=noise)  # the search finds no such audio
    settings = StableDecoding(steps=15, repairs=1)
    waveform, reached = tiny_codec.decode(codes, stable=settings)
    kept = (tiny_codec.encode(waveform) == codes).double().mean().item()
    plain = (tiny_codec.encode(tiny_codec.decode(codes)) == codes).double().mean().item()
    assert reached.kept.item() == kept < 1
    assert kept > plain


def test_it_repeats_to_the_bit(tiny_codec: StftCodec, tone: Tensor) -> None:
    codes = tiny_codec.encode(tone)
    settings = StableDecoding(robust_to=("dither", "gain:0.5"), seed=4)
    first, _ = tiny_codec.decode(codes, stable=settings)
    second, _ = tiny_codec.decode(codes, stable=settings)
    assert torch.equal(first, second)


def test_no_weight_gets_a_gradient(tone: Tensor) -> None:
    codec = make_stft_codec()
    codec.decode(codec.encode(tone), stable=StableDecoding(steps=2))
    assert all(weight.grad is None for weight in codec.model.parameters())


@pytest.mark.parametrize("name", SEARCHED)
def test_other_codecs_keep_more_codes(name: str) -> None:
    """Weights are random, so the codes depend on noise; the search must still raise the match."""
    codec = MAKERS[name]()
    audio = make_tone(0.5, 1, codec.spec.sample_rate)[None]
    codes = codec.encode(audio)
    plain = codec.decode(codes, audio.shape[-1])
    before = (codec.encode(plain) == codes).double().mean().item()
    _, reached = codec.decode(codes, audio.shape[-1], stable=StableDecoding(steps=20, repairs=0))
    assert reached.kept.item() > before


def test_codecs_without_levels_refuse() -> None:
    codec = MAKERS["mimi"]()
    codes = codec.encode(torch.zeros(1, 1, codec.spec.hop_length * 8))
    with pytest.raises(ValueError, match=r"cannot decode stably.*or decode without stable"):
        codec.decode(codes, stable=True)


def test_a_beam_refuses(tiny_codec: StftCodec) -> None:
    codes = torch.zeros(1, 4, 8, dtype=torch.long)
    with pytest.raises(ValueError, match="greedy encoding"):
        tiny_codec.with_beam(4).decode(codes, stable=True)
