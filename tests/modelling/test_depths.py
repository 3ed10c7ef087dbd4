"""The depth of frames as a level of its own: masks, embeddings, heads, loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from makers.codecs import make_variable
from tokgen.modelling.depths import join_depth, live_levels, split_depth
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import masked_cross_entropy, training_mask

K, V, C, T = 3, 16, 4, 14


def make_model(seed: int = 0, **more: Any) -> MaskedTransformer:
    """A model with a depth, in eval mode."""
    sizes: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 2, "dim_head": 32, "code_dim": 4}
    arguments = {"rate": {"level": 1.0}, "embedding": "learned", **sizes, **more}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MaskedTransformer(
            n_codebooks=K, codebook_size=V, conditioning_dim=C, **arguments
        ).eval()
        if model.code_vectors is not None:
            model.code_vectors.normal_()
    return model


def make_tokens(batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes [B, K, T], also past the depth, and the depth [B, T]."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, V, (batch, K, T), generator=generator)
    return codes, torch.randint(1, K + 1, (batch, T), generator=generator)


def conditioning_of(batch: int = 2) -> Tensor:
    return torch.randn(batch, C, T, generator=torch.Generator().manual_seed(5))


def test_depth_and_codes_come_back_without_what_is_past_the_depth() -> None:
    codes, depth = make_tokens()
    tokens = join_depth(codes, depth)
    found, levels = split_depth(tokens)
    live = torch.arange(K)[:, None] < depth[:, None]
    assert torch.equal(levels, depth) and torch.equal(found, codes * live)
    assert torch.equal(live_levels(tokens)[:, 1:], live) and live_levels(tokens)[:, 0].all()
    assert join_depth(codes[0], torch.zeros(T))[0].eq(0).all()  # past an item's end


def test_masks_hide_live_positions_only() -> None:
    codes, depth = make_tokens(batch=600)
    depth[:200] = 1
    lengths = torch.full((600,), T - 2)
    tokens = join_depth(codes, depth)
    mask = training_mask(tokens, lengths, V, torch.Generator().manual_seed(0), variable_depth=True)
    live = live_levels(tokens)[torch.arange(600), mask.level]
    assert mask.target.any(-1).all() and not (mask.target & ~live).any()
    assert not mask.target[:, T - 2 :].any()
    share = mask.level.bincount(minlength=K + 1) / 600
    assert mask.level[:200].unique().tolist() == [0, 1]  # the only levels that these have
    torch.testing.assert_close(share[2:], torch.full((2,), 1 / 6), atol=0.05, rtol=0)


@pytest.mark.parametrize("embedding", ["codes", "learned"])
def test_codes_past_the_depth_change_nothing(embedding: str) -> None:
    model = make_model(embedding=embedding)
    codes, depth = make_tokens()
    tokens, live = join_depth(codes, depth), live_levels(join_depth(codes, depth))
    other = torch.randint(0, V + 1, tokens.shape, generator=torch.Generator().manual_seed(1))
    changed = tokens.where(live, other)
    assert torch.equal(model(tokens), model(changed))
    more = changed.where(live | (torch.arange(T) > 0), tokens)
    more[0, 0, 0] = (tokens[0, 0, 0] + 1) % K  # the depth is seen
    assert (model(more, level=1)[0] - model(tokens, level=1)[0]).abs().min() > 0


def test_loss_does_not_depend_on_codes_past_the_depth() -> None:
    model, (codes, depth) = make_model(), make_tokens(batch=8)
    losses = []
    for shown in (codes, codes.where(torch.arange(K)[:, None] < depth[:, None], 7)):
        tokens = torch.cat([depth[:, None] - 1, shown], 1)  # not cut by `join_depth`
        generator = torch.Generator().manual_seed(0)
        mask = training_mask(tokens, torch.full((8,), T), V, generator, variable_depth=True)
        logits = model(mask.tokens, conditioning_of(8), level=mask.level)
        losses.append(masked_cross_entropy(logits, tokens, mask))
        assert torch.isfinite(losses[-1])
    assert torch.equal(*losses)


def test_the_depth_has_k_logits() -> None:
    model, tokens = make_model(), join_depth(*make_tokens())
    every = model(tokens, conditioning_of())
    assert every.shape == (2, K + 1, T, V)
    assert every[:, 0, :, K:].eq(-torch.inf).all() and every[:, 0, :, :K].isfinite().all()
    alone = model(tokens, conditioning_of(), level=0)
    torch.testing.assert_close(alone, every[:, 0, :, :K])
    levels, positions = torch.tensor([2, 0]), torch.rand(2, T) < 0.5
    mixed = model(tokens, conditioning_of(), level=levels)
    torch.testing.assert_close(mixed, every[torch.arange(2), levels])
    some = model(tokens, conditioning_of(), level=levels, positions=positions)
    torch.testing.assert_close(some, mixed[positions])


def test_all_parameters_learn_under_autocast() -> None:
    model, (codes, depth) = make_model().train(), make_tokens(batch=16)
    tokens = join_depth(codes, depth)
    generator = torch.Generator().manual_seed(0)
    mask = training_mask(tokens, torch.full((16,), T), V, generator, variable_depth=True)
    drop = torch.arange(16) % 2 == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(mask.tokens, conditioning_of(16), drop_conditioning=drop, level=mask.level)
        masked_cross_entropy(logits, tokens, mask).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_models_without_depth_stay_as_they_are(tmp_path: Path) -> None:
    plain = make_model(rate=None)
    assert "rate" not in plain.config and plain.n_levels == K
    assert not [name for name in plain.state_dict() if "depth_level" in name]
    both = make_model()
    assert set(plain.state_dict()) < set(both.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, both.state_dict()[name])  # the same random numbers


def test_depth_is_saved_and_loaded(tmp_path: Path) -> None:
    model, tokens = make_model(), join_depth(*make_tokens())
    loaded = MaskedTransformer.from_pretrained(model.save_pretrained(tmp_path))
    assert loaded.config == model.config and torch.equal(loaded(tokens), model(tokens))


def test_a_codec_of_variable_bitrate_gives_a_depth() -> None:
    sizes: dict[str, Any] = {"dim": 32, "depth": 1, "heads": 2, "dim_head": 32}
    codec = make_variable(1.0)
    model = MaskedTransformer.for_codec(codec, **sizes)
    assert model.variable_depth and model.config["rate"] == {"level": 1.0}
    assert not MaskedTransformer.for_codec(make_variable(None), **sizes).variable_depth


def test_wrong_sizes_are_refused() -> None:
    codes, _ = make_tokens()
    with pytest.raises(ValueError, match=r"expected \[B, 4, T\]"):
        make_model()(codes)
    with pytest.raises(ValueError, match="level = 0: must be above 0"):
        make_model(rate={"level": 0})
    with pytest.raises(ValueError, match="3 levels of 2 codes"):
        MaskedTransformer(n_codebooks=3, codebook_size=2, rate={"level": 1.0})
