"""Long audio is generated in windows, and a variation keeps a share of the codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from makers.audio import RATE, make_tone
from makers.codecs import make_stft_codec, make_variable
from makers.generators import make_generator
from tokgen.generation import request
from tokgen.generation.clips import conditioning_for, generate_clips
from tokgen.generation.generate import generate
from tokgen.generation.sampling import sample
from tokgen.generation.settings import SamplingSettings, WindowSettings
from tokgen.generation.windows import Windows, sample_windows
from tokgen.modelling.masked import MaskedTransformer
from tokgen.zoo.stft import StftCodec

SETTINGS = SamplingSettings(steps=(2, 1))
SHORT = {"window_seconds": 0.5, "overlap_seconds": 0.1}  # 25 and 5 frames


@pytest.fixture(scope="module")
def codec() -> StftCodec:
    return make_stft_codec(name="little", n_codebooks=3, codebook_size=32)


@pytest.fixture(scope="module")
def model(codec: StftCodec) -> MaskedTransformer:
    return make_generator(codec)


@pytest.fixture(scope="module")
def speech() -> Tensor:
    return make_tone(1.3, 3)  # 65 frames


def made_in(model, windows, lengths, keep=None, codes=None, conditioning=None):
    """Sample in windows; return the codes, and the item, frames and kept frames of each call."""
    shape = (len(lengths), 3, max(lengths))
    calls = []

    def sampler(model, conditioning, n, settings, **options):
        kept = int(options["keep"].all(1).sum())
        calls.append((options["item_ids"], n.tolist(), kept))
        return sample(model, conditioning, n, settings, **options)

    made = sample_windows(
        sampler,
        model,
        conditioning,
        torch.tensor(lengths),
        SETTINGS,
        windows=windows,
        seed=0,
        item_ids=range(len(lengths)),
        codes=torch.zeros(shape, dtype=torch.int64) if codes is None else codes,
        keep=torch.zeros(shape, dtype=torch.bool) if keep is None else keep,
    )
    return made, calls


def test_windows_overlap_and_cover_everything(model) -> None:
    made, calls = made_in(model, Windows(10, 3), [24, 10])
    assert made.shape == (2, 3, 24)
    assert [(n, kept) for _, n, kept in calls] == [
        ([10], 0), ([10], 3), ([10], 3), ([10], 0),
    ]  # fmt: skip  # 0-10, 7-17, 14-24; the other item as a whole
    ids = [call[0][0] for call in calls]
    assert len(set(ids)) == 4 and ids[0] == 0 and ids[3] == 1
    assert (made[1, :, 10:] == 0).all()
    first, _ = made_in(model, Windows(10, 3), [10])
    assert made[0, :, :10].equal(first[0])
    whole, calls = made_in(model, Windows(24, 3), [24, 10])
    assert len(calls) == 1 and not whole.equal(made)
    none, _ = made_in(model, None, [24, 10])
    assert none.equal(whole)


def test_each_window_sees_its_part_of_the_conditioning_and_the_codes(model) -> None:
    conditioning = torch.randn(1, 30, 24, generator=torch.Generator().manual_seed(0))
    made, _ = made_in(model, Windows(10, 3), [24], conditioning=conditioning)
    codes, keep = made[..., 7:17].clone(), torch.zeros(1, 3, 10, dtype=torch.bool)
    keep[..., :3] = True
    again = sample(
        model, conditioning[..., 7:17], torch.tensor([10]), SETTINGS, seed=0, codes=codes,
        keep=keep, item_ids=[1 << 32],
    )  # fmt: skip
    assert again.equal(made[..., 7:17])


def test_a_window_begins_before_a_gap(model) -> None:
    keep = torch.ones(1, 3, 60, dtype=torch.bool)
    keep[..., 30:32] = False
    keep[:, 2, 50] = False
    codes = torch.randint(32, (1, 3, 60), generator=torch.Generator().manual_seed(0))
    made, calls = made_in(model, Windows(10, 4), [60], keep, codes)
    assert [(n, kept) for _, n, kept in calls] == [([10], 8), ([10], 9)]
    assert made[keep].equal(codes[keep])
    nothing, calls = made_in(model, Windows(10, 4), [60], torch.ones_like(keep), codes)
    assert nothing.equal(codes) and not calls


def test_long_audio_is_generated_in_windows(model, codec, speech, monkeypatch) -> None:
    made = generate(model, codec, like=speech, settings=SETTINGS, seed=4, **SHORT)
    assert made.codes.shape == (3, 65) and made.waveform.shape == speech.shape
    assert made.waveform.equal(codec.decode(made.codes[None], speech.shape[-1])[0])
    whole = generate(model, codec, like=speech, settings=SETTINGS, seed=4)
    features = conditioning_for(model, [speech])
    [plain] = generate_clips(
        model, codec, [speech.shape[-1]], SETTINGS, conditioning=features, seed=4
    )
    assert whole.codes.equal(plain.codes) and whole.waveform.equal(plain.waveform)
    assert not whole.codes.equal(made.codes)
    long = generate(model, codec, prompt=speech, seconds=2.0, settings=SETTINGS, **SHORT)
    assert long.waveform.shape[-1] == speech.shape[-1] + 2 * RATE
    assert long.codes[:, :65].equal(codec.encode(speech[None])[0])
    monkeypatch.setattr(request, "WHOLE_SECONDS", 0.5)  # encode it in blocks
    again = generate(model, codec, prompt=speech, seconds=2.0, settings=SETTINGS, **SHORT)
    assert again.codes.equal(long.codes) and again.waveform.equal(long.waveform)


def test_windows_of_a_variable_bitrate(speech) -> None:
    codec = make_variable().with_rate(level=2.0)
    model = make_generator(codec, conditioned=False)
    long = generate(model, codec, prompt=speech, seconds=1.0, settings=SETTINGS, **SHORT)
    encoded = codec.encode_with_side(speech[None])
    kept = int(speech.shape[-1] // codec.spec.hop_length)
    assert long.depth is not None and len(long.depth) == long.codes.shape[-1]
    assert long.depth[:kept].equal(encoded.side["depth"][0, :kept].long())
    assert long.codes[:, :kept].equal(encoded.codes[0, :, :kept])


def test_a_variation_keeps_a_share_that_the_seed_chooses(model, codec, speech) -> None:
    codes = codec.encode(speech[None])[0]
    made = [
        generate(model, codec, vary=speech, keep=0.6, settings=SETTINGS, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert made[0].codes.equal(made[1].codes) and made[0].waveform.shape == speech.shape
    same = [made[i].codes == codes for i in (0, 2)]
    for found in same:
        assert (found.sum(-1) >= 39).all() and found.sum(-1).float().mean() < 55
    assert not same[0].equal(same[1])
    nothing = generate(model, codec, vary=speech, keep=1.0, settings=SETTINGS)
    assert nothing.codes.equal(codes)
    everything = generate(model, codec, vary=speech, keep=0.0, settings=SETTINGS)
    assert (everything.codes == codes).float().mean() < 0.2
    default = generate(model, codec, vary=speech, settings=SETTINGS)
    assert default.codes.equal(
        generate(model, codec, vary=speech, keep=0.3, settings=SETTINGS).codes
    )
    guided = generate(model, codec, vary=speech, like=speech, settings=SETTINGS)
    assert not guided.codes.equal(default.codes)


def test_windows_of_settings() -> None:
    spec = make_stft_codec().spec
    assert Windows.of(WindowSettings(), spec) == Windows(1000, 250)
    tight = WindowSettings(window_seconds=0.001, overlap_seconds=0.0)
    assert Windows.of(tight, spec) == Windows(1, 0)
    with pytest.raises(ValueError, match="5 frames that overlap by 5: the overlap must"):
        Windows(5, 5)
