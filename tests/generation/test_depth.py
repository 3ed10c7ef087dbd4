"""Generation of codes of variable bitrate: the depth first, then the codes up to it."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import make_variable
from tokgen.codec.base import Codec
from tokgen.generation.clips import conditioning_for, generate_clips
from tokgen.generation.generate import generate
from tokgen.generation.sampling import sample
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.depths import join_depth, live_levels, split_depth
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import masked_cross_entropy, training_mask
from tokgen.runs.store import ClipStore
from tokgen.tokens.conditioning import ConditioningSettings

K, V, C = 3, 16, 4
LENGTHS = torch.tensor([23, 11, 1])
SETTINGS = SamplingSettings(steps=(4, 2, 1))


def small(seed: int = 0, **more: Any) -> MaskedTransformer:
    sizes: dict[str, Any] = {"dim": 32, "depth": 1, "heads": 2, "dim_head": 32}
    arguments = {"rate": {"level": 1.0}, "embedding": "learned", "conditioning_dim": C, **sizes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaskedTransformer(n_codebooks=K, codebook_size=V, **{**arguments, **more}).eval()


@pytest.fixture(scope="module")
def model() -> MaskedTransformer:
    """A model whose depths and codes vary."""
    model = small()
    with torch.no_grad():
        for head in (model.depth_level.head_weight, model.head_weight):
            head.mul_(20)
    return model


def conditioning(lengths: Tensor = LENGTHS) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(len(lengths), C, int(lengths.max()), generator=generator)


def given_tokens() -> tuple[Tensor, Tensor]:
    """Codes up to a depth, and some of them to keep with their depth."""
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(0, V, (3, K, 23), generator=generator)
    tokens = join_depth(codes, torch.randint(1, K + 1, (3, 23), generator=generator))
    keep = torch.rand(tokens.shape, generator=generator) < 0.3
    keep[:, 0] |= keep.any(1)
    return tokens, keep


@pytest.mark.parametrize("shape", [None, (5, 32)], ids=["as it is", "padded"])
@pytest.mark.parametrize("some_kept", [True, False])
def test_batches_equal_single_items(model, shape, some_kept) -> None:
    codes, keep = given_tokens()
    told = conditioning()
    given = {"codes": codes, "keep": keep} if some_kept else {}
    out = sample(model, told, LENGTHS, SETTINGS, seed=3, item_ids=[5, 6, 7], shape=shape, **given)
    assert out.shape == (3, K + 1, 23) and len(out[0, 0].unique()) > 1
    for i, n in enumerate(LENGTHS.tolist()):
        part = (slice(i, i + 1), slice(None), slice(n))
        given = {"codes": codes[part], "keep": keep[part]} if some_kept else {}
        length = torch.tensor([n])
        alone = sample(model, told[part], length, SETTINGS, seed=3, item_ids=[5 + i], **given)
        assert torch.equal(out[i, :, :n], alone[0])
        assert (out[i, :, n:] == 0).all()


def test_codes_end_at_the_depth_and_depths_are_in_range(model) -> None:
    out = sample(model, conditioning(), LENGTHS, SETTINGS, seed=0)
    codes, depth = split_depth(out)
    assert 1 <= depth.min() < depth.max() <= K and 0 <= codes.min() <= codes.max() < V
    assert (codes[~live_levels(out)[:, 1:]] == 0).all() and (codes > 0).any()


def test_given_codes_and_depth_are_kept(model) -> None:
    codes, keep = given_tokens()
    inside = (torch.arange(23) < LENGTHS[:, None])[:, None]
    out = sample(model, None, LENGTHS, SETTINGS, seed=0, codes=codes, keep=keep)
    assert torch.equal(out[keep & inside], codes[keep & inside])
    keep[:, 0] = True  # the whole depth
    out = sample(model, None, LENGTHS, SETTINGS, seed=0, codes=codes, keep=keep)
    assert torch.equal(out[:, 0], codes[:, 0] * inside[:, 0])
    assert torch.equal(live_levels(out) & inside, live_levels(codes) & inside)


def test_fewer_levels_are_the_first_of_all(model) -> None:
    whole = sample(model, conditioning(), LENGTHS, SETTINGS, seed=0)
    few = sample(model, conditioning(), LENGTHS, SETTINGS, seed=0, n_codebooks=2)
    assert torch.equal(few, whole[:, :3])


def test_codes_need_their_depth(model) -> None:
    codes, keep = given_tokens()
    given: dict[str, Any] = {"seed": 0, "codes": codes}
    with pytest.raises(ValueError, match="kept without their depth: keep level 0"):
        sample(model, None, LENGTHS, SETTINGS, keep=keep & (torch.arange(4) > 0)[:, None], **given)
    wrong = {**given, "codes": codes + K * (torch.arange(4) == 0)[:, None]}
    with pytest.raises(ValueError, match=r"depth to keep lies outside 1\.\.3"):
        sample(model, None, LENGTHS, SETTINGS, keep=keep, **wrong)


def test_a_model_learns_the_depth_and_the_codes_of_a_clip() -> None:
    """Overfit: sampling from the features gives the clip's own depth and codes."""
    model, told = small(dim=64).train(), conditioning(torch.tensor([20]))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, V, (1, K, 20), generator=generator)
    tokens = join_depth(codes, torch.randint(1, K + 1, (1, 20), generator=generator))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    many = tokens.expand(16, -1, -1)
    for _ in range(150):
        lengths = torch.full((16,), 20)
        mask = training_mask(many, lengths, V, generator, variable_depth=True)
        logits = model(mask.tokens, told.expand(16, -1, -1), level=mask.level)
        loss = masked_cross_entropy(logits, many, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    chosen = SamplingSettings(steps=(4, 1), guidance_scale=1.0, top_p=0.5)
    assert torch.equal(sample(model, told, torch.tensor([20]), chosen, seed=0), tokens)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_variable(1.0, n_codebooks=3)


def model_for(codec: Codec, **more: Any) -> MaskedTransformer:
    sizes = {"dim": 32, "depth": 1, "heads": 2, "dim_head": 32}
    about = {
        "conditioning": asdict(ConditioningSettings.for_codec(codec.spec)),
        "conditioning_mean": [-10.0] + [0.0] * 29,
        "conditioning_std": [10.0] * 30,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedTransformer.for_codec(codec, **sizes, **about, **more).eval()


@pytest.fixture(scope="module")
def made_for(codec) -> MaskedTransformer:
    return model_for(codec)


@pytest.fixture(scope="module")
def speech() -> Tensor:
    return make_tone(0.61, 3)[:, :9700]  # 30 frames and 100 samples


def test_clips_are_decoded_with_their_depth(made_for, codec, speech, tmp_path: Path) -> None:
    clips = [speech, speech[:, :3300], speech[:, 900:6000]]
    n_samples = [clip.shape[-1] for clip in clips]
    told = conditioning_for(made_for, clips)
    store = ClipStore(tmp_path, "clips", [])
    for _ in range(2):  # the second time from the store
        out = generate_clips(
            made_for, codec, n_samples, SETTINGS, conditioning=told, batch_size=2, store=store
        )
        for made, n in zip(out, n_samples, strict=True):
            assert made.depth is not None
            assert made.codes.shape == (3, codec.spec.n_frames(n)) == (3, len(made.depth))
            assert (made.codes[torch.arange(3)[:, None] >= made.depth] == 0).all()
            side = {"depth": made.depth[None].float()}
            heard = codec.decode(made.codes[None], n, side)[0]
            torch.testing.assert_close(made.waveform, heard)
            assert not torch.equal(heard, codec.decode(made.codes[None], n, {
                "depth": torch.full_like(side["depth"], 3.0)
            })[0])  # fmt: skip


def test_the_depth_of_clips_can_be_kept(made_for, codec, speech) -> None:
    encoded = codec.encode_batch_with_side([speech])
    told = conditioning_for(made_for, [speech])
    found = {}
    for keep_depth in (True, False):
        [made] = generate_clips(
            made_for, codec, [9700], SETTINGS, conditioning=told,
            sides=[encoded[0].side], keep_depth=keep_depth,
        )  # fmt: skip
        found[keep_depth] = made
    assert torch.equal(found[True].depth, encoded[0].depth)
    assert not torch.equal(found[False].depth, encoded[0].depth)
    with pytest.raises(ValueError, match="keeps codes or the depth, but has no depth"):
        generate_clips(made_for, codec, [9700], SETTINGS, conditioning=told, keep_depth=True)


@pytest.mark.parametrize("with_rate", [True, False])
def test_prompts_and_gaps_keep_codes_and_depth(made_for, codec, speech, with_rate) -> None:
    """The codec may be the one with all levels: the model names its level."""
    used = codec if with_rate else make_variable(None, n_codebooks=3)
    encoded = codec.encode_with_side(speech[None])
    [codes], [depth] = encoded.codes, encoded.depth
    made = generate(made_for, used, prompt=speech, seconds=0.2, settings=SETTINGS)
    assert torch.equal(made.codes[:, :30], codes[:, :30])
    assert torch.equal(made.depth[:30], depth[:30]) and made.depth.min() >= 1
    filled = generate(made_for, used, infill=speech, start=0.2, end=0.3, settings=SETTINGS)
    outside = torch.tensor([*range(10), *range(15, 31)])
    assert torch.equal(filled.codes[:, outside], codes[:, outside])
    assert torch.equal(filled.depth[outside], depth[outside])
    like = generate(made_for, used, like=speech, settings=SETTINGS)
    assert like.depth is not None and like.waveform.shape == (1, 9700)
    both = generate(
        made_for, used, infill=speech, start=0.2, end=0.3, like=speech, settings=SETTINGS
    )
    assert torch.equal(both.depth[outside], depth[outside])


def test_guidance_reaches_the_depth(made_for, codec, speech) -> None:
    strong = SamplingSettings(steps=(4, 2, 1), guidance_scale=8.0)
    a, b = (generate(made_for, codec, like=speech, settings=s) for s in (SETTINGS, strong))
    assert not torch.equal(a.depth, b.depth)


def test_what_does_not_fit_is_refused(made_for, codec, speech) -> None:
    with pytest.raises(ValueError, match="stable decoding of codes of variable depth"):
        generate(made_for, codec, like=speech, stable=True)
    fixed = model_for(make_variable(None, n_codebooks=3))
    with pytest.raises(ValueError, match="all levels of all frames: load the codec without"):
        generate(fixed, codec, like=speech)
    depth = {"depth": torch.ones(7)}
    with pytest.raises(ValueError, match="depth of 7 frames for codes of 31 frames"):
        generate_clips(made_for, codec, [9700], SETTINGS, sides=[depth])
    assert math.isfinite(generate(fixed, make_variable(None, n_codebooks=3), like=speech).seconds)
