"""Waveform -> conditioning -> codes -> waveform with a tiny random codec and model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from codec_makers import make_encodec
from torch import Tensor

from tokgen.generate import mfcc_of, vocode
from tokgen.mfcc import MfccSettings
from tokgen.model import MaskedTransformer
from tokgen.sampling import SamplingSettings
from tokgen.stft_codec import StftCodec, StftCodecModel

SETTINGS = SamplingSettings(steps=(4, 1))
N_SAMPLES = [5000, 321, 9600, 1, 4321]


def make_codec(name: str = "little", seed: int = 0) -> StftCodec:
    """A random codec of three levels of 32 entries."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = StftCodecModel(
            n_fft=640,
            width=16,
            encoder_depth=1,
            decoder_depth=1,
            latent_dim=8,
            n_codebooks=3,
            codebook_size=32,
            codebook_dim=4,
        )
    return StftCodec.from_model(model, name)


@pytest.fixture(scope="module")
def codec() -> StftCodec:
    return make_codec()


@pytest.fixture(scope="module")
def model(codec: StftCodec) -> MaskedTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedTransformer.for_codec(
            codec,
            dim=32,
            depth=1,
            heads=2,
            dim_head=32,
            conditioning=asdict(MfccSettings.for_codec(codec.spec)),
            conditioning_mean=[-10.0] + [0.0] * 29,
            conditioning_std=[10.0] * 30,
        ).eval()


@pytest.fixture(scope="module")
def waveforms() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.3 * torch.randn(1, n, generator=generator) for n in N_SAMPLES]


def test_lengths_order_and_range(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    conditioning = mfcc_of(model, waveforms)
    out = vocode(model, codec, conditioning, N_SAMPLES, SETTINGS, batch_size=2)
    for made, n in zip(out, N_SAMPLES, strict=True):
        assert made.codes.shape == (3, codec.spec.n_frames(n))
        assert 0 <= made.codes.min() <= made.codes.max() < 32
        assert made.waveform.shape == (1, n)
        torch.testing.assert_close(made.waveform, codec.decode(made.codes[None], n)[0])


def test_batch_size_and_order_change_nothing(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    conditioning = mfcc_of(model, waveforms)
    one = vocode(model, codec, conditioning, N_SAMPLES, SETTINGS, seed=3, batch_size=1)
    for size in (2, 5):
        many = vocode(model, codec, conditioning, N_SAMPLES, SETTINGS, seed=3, batch_size=size)
        assert all(torch.equal(a.codes, b.codes) for a, b in zip(one, many, strict=True))
    back = vocode(
        model,
        codec,
        conditioning[::-1],
        N_SAMPLES[::-1],
        SETTINGS,
        seed=3,
        item_ids=[4, 3, 2, 1, 0],
    )
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(one, back[::-1], strict=True))


def test_conditioning_counts_unless_unconditional(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    conditioning = mfcc_of(model, waveforms)
    louder = [c + 20 for c in conditioning]
    plain, changed, floor, floor_changed = (
        vocode(model, codec, c, N_SAMPLES, SETTINGS, unconditional=u)
        for c, u in [
            (conditioning, False),
            (louder, False),
            (conditioning, True),
            (louder, True),
        ]
    )
    assert not torch.equal(plain[2].codes, changed[2].codes)
    assert not torch.equal(plain[2].codes, floor[2].codes)
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(floor, floor_changed, strict=True))


def test_saved_model_generates_the_same(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor], tmp_path: Path
) -> None:
    loaded = MaskedTransformer.from_pretrained(model.save_pretrained(tmp_path / "model"))
    before = mfcc_of(model, waveforms[:2])
    after = mfcc_of(loaded, waveforms[:2])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    a = vocode(model, codec, before, N_SAMPLES[:2], SETTINGS)
    b = vocode(loaded, codec, after, N_SAMPLES[:2], SETTINGS)
    assert all(torch.equal(x.waveform, y.waveform) for x, y in zip(a, b, strict=True))


def test_side_information_comes_from_elsewhere(waveforms: list[Tensor]) -> None:
    codec = make_encodec("encodec-48k")  # chunks of 8000 samples, a scale each
    settings = asdict(MfccSettings.for_codec(codec.spec))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MaskedTransformer.for_codec(
            codec, dim=32, depth=1, heads=2, dim_head=32, conditioning=settings
        ).eval()
    conditioning = mfcc_of(model, waveforms)
    sides = [e.side for e in codec.encode_batch_with_side(waveforms)]
    with pytest.raises(ValueError, match=r"needs side information \['scales'\] of 5 utterances"):
        vocode(model, codec, conditioning, N_SAMPLES, SETTINGS)
    with pytest.raises(ValueError, match="pass `sides`"):
        vocode(model, codec, conditioning, N_SAMPLES, SETTINGS, sides=sides[:2])
    out = vocode(model, codec, conditioning, N_SAMPLES, SETTINGS, sides=sides, batch_size=2)
    for made, n, side in zip(out, N_SAMPLES, sides, strict=True):
        assert made.codes.shape == (3, codec.spec.n_frames(n))
        expected = codec.decode(made.codes[None], n, {"scales": side["scales"][None]})
        torch.testing.assert_close(made.waveform, expected[0])


def test_nothing_to_generate(model: MaskedTransformer, codec: StftCodec) -> None:
    assert vocode(model, codec, [], [], SETTINGS) == []


def test_misfits_are_refused(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    conditioning = mfcc_of(model, waveforms[:1])
    with pytest.raises(ValueError, match=r"'little'.*'stranger'"):
        vocode(model, make_codec("stranger", seed=1), conditioning, [5000], SETTINGS)
    with pytest.raises(ValueError, match=r"16 frames for 9999 samples.*32 frames"):
        vocode(model, codec, conditioning, [9999], SETTINGS)
    bare = MaskedTransformer.for_codec(codec, dim=32, depth=1, heads=2, dim_head=32)
    with pytest.raises(ValueError, match="no conditioning settings"):
        mfcc_of(bare, waveforms)
