"""The autoregressive transformer: its pattern, causality, cache, guidance, saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tokgen.modelling.delay import DelayTransformer
from tokgen.modelling.loading import load_transformer
from tokgen.modelling.masked import MaskedTransformer
from tokgen.tokens.layouts import delay, undelay

K, V, C = 3, 32, 5
SIZES: dict[str, Any] = {
    "n_codebooks": K, "codebook_size": V, "conditioning_dim": C, "embedding": "learned",
    "dim": 32, "depth": 2, "heads": 2, "dim_head": 32,
}  # fmt: skip


def make_model(**more: Any) -> DelayTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DelayTransformer(**{**SIZES, **more}).eval()


def make_inputs(frames: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, V, (2, K, frames), generator=generator)
    return codes, torch.randn(2, C, frames, generator=generator)


@torch.no_grad()
def test_logits_depend_on_earlier_steps_only() -> None:
    model, (codes, conditioning) = make_model(), make_inputs()
    plain = model(codes, conditioning)
    changed = codes.clone()
    changed[0, 1, 4] = (codes[0, 1, 4] + 1) % V  # in step 5
    moved = (model(changed, conditioning) - plain)[0].abs().sum(-1) > 1e-6  # [K, T]
    step = torch.arange(9) + torch.arange(K)[:, None]
    assert not moved[step <= 5].any() and moved[step == 6].all()


@torch.no_grad()
@pytest.mark.parametrize("shown", [True, False])
def test_steps_with_a_cache_give_the_logits_of_the_whole(shown: bool) -> None:
    model, (codes, conditioning) = make_model(), make_inputs()
    lengths = torch.tensor([9, 6])
    whole = model(codes, conditioning if shown else None, lengths=lengths)
    steps, state, out = delay(codes, model.mask_id, lengths=lengths), None, []
    tokens = torch.full((2, K), model.mask_id)
    padded = torch.nn.functional.pad(conditioning, (0, K - 1))
    for step in range(9 + K - 1):
        logits, state = model.step(
            tokens, padded[..., step] if shown else None, state, drop_conditioning=step >= lengths
        )
        out.append(logits)
        tokens = steps[..., step]
    found = undelay(torch.stack(out, 2), dim=2)
    torch.testing.assert_close(found[0], whole[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1, :, :6], whole[1, :, :6], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_changes_no_logits() -> None:
    model, (codes, conditioning) = make_model(), make_inputs()
    together = model(codes, conditioning, lengths=torch.tensor([9, 6]))
    alone = model(codes[1:, :, :6], conditioning[1:, :, :6])
    torch.testing.assert_close(together[1:, :, :6], alone, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_hidden_conditioning_is_none() -> None:
    model, (codes, conditioning) = make_model(), make_inputs()
    drop = torch.tensor([True, False])
    found = model(codes, conditioning, drop_conditioning=drop)
    torch.testing.assert_close(found[0], model(codes, None)[0])
    torch.testing.assert_close(found[1], model(codes, conditioning)[1])


def test_wrong_shapes_and_rates_are_refused() -> None:
    model, (codes, conditioning) = make_model(), make_inputs()
    with pytest.raises(ValueError, match=r"codes of shape \(2, 2, 9\): expected \[B, 3, T\]"):
        model(codes[:, :2], conditioning)
    with pytest.raises(ValueError, match="conditioning of shape"):
        model(codes, conditioning[..., :4])
    with pytest.raises(ValueError, match="frames of variable depth are not supported"):
        make_model(rate={"level": 1.0})


def test_saved_models_are_loaded_as_their_kind(tmp_path) -> None:
    model, (codes, conditioning) = make_model(), make_inputs()
    model.save_pretrained(tmp_path / "delay")
    MaskedTransformer(**SIZES).save_pretrained(tmp_path / "masked")
    again = load_transformer(tmp_path / "delay")
    assert isinstance(again, DelayTransformer)
    assert again(codes, conditioning).equal(model(codes, conditioning))
    assert isinstance(load_transformer(tmp_path / "masked"), MaskedTransformer)
    with pytest.raises(ValueError, match="is of a 'tokgen_delay_transformer'"):
        MaskedTransformer.from_pretrained(tmp_path / "delay")
