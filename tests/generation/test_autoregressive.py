"""Step-by-step sampling: the same for any batch, guidance, top-p, prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tokgen.codec.spec import CodecSpec
from tokgen.generation.autoregressive import sample_delay
from tokgen.generation.nucleus import draw
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.delay import DelayTransformer

K, V, C = 3, 16, 4
LENGTHS = torch.tensor([10, 7, 4])


@pytest.fixture(scope="module")
def model() -> DelayTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DelayTransformer(
            n_codebooks=K, codebook_size=V, conditioning_dim=C, embedding="learned", dim=32,
            depth=2, heads=2, dim_head=32,
        )  # fmt: skip
        torch.nn.init.normal_(made.head_weight, std=0.5)  # far from uniform
        return made.eval()


@pytest.fixture(scope="module")
def conditioning() -> Tensor:
    return torch.randn(3, C, 10, generator=torch.Generator().manual_seed(2))


def run(model: DelayTransformer, *args: Any, scale: float = 2.0, top_p: float = 0.9, **more: Any):
    return sample_delay(
        model, *args, SamplingSettings(guidance_scale=scale, top_p=top_p), seed=5, **more
    )


def test_codes_do_not_depend_on_the_batch(model, conditioning) -> None:
    together = run(model, conditioning, LENGTHS)
    assert together.shape == (3, K, 10) and not together[2, :, 4:].any()
    assert (together >= 0).all() and (together < V).all()
    for i, n in enumerate(LENGTHS.tolist()):
        alone = run(model, conditioning[i : i + 1, :, :n], LENGTHS[i : i + 1], item_ids=[i])
        assert alone[0].equal(together[i, :, :n])
    turned = run(model, conditioning.flip(0), LENGTHS.flip(0), item_ids=[2, 1, 0])
    assert turned.flip(0).equal(together)
    assert not run(model, conditioning, LENGTHS, item_ids=[7, 8, 9]).equal(together)


def test_guidance_of_1_is_conditional(model, conditioning) -> None:
    """The scale 1 gives what the conditional logits alone give, drawn by hand."""
    found = run(model, conditioning, LENGTHS, scale=1.0, top_p=1e-9)
    logits = model(found, conditioning, lengths=LENGTHS)  # the likeliest code at each position
    for i, n in enumerate(LENGTHS.tolist()):
        assert logits[i, :, :n].argmax(-1).equal(found[i, :, :n])
    guided = run(model, conditioning, LENGTHS, scale=3.0, top_p=1e-9)
    assert not guided.equal(found)
    both = [model(guided, c, lengths=LENGTHS) for c in (conditioning, None)]
    mixed = both[1] + 3.0 * (both[0] - both[1])
    assert mixed[0].argmax(-1).equal(guided[0])
    free = run(model, None, LENGTHS, top_p=1e-9)
    assert model(free, None, lengths=LENGTHS)[0].argmax(-1).equal(free[0])


def test_drawn_codes_are_in_the_nucleus(model, conditioning) -> None:
    found = run(model, conditioning, LENGTHS, scale=1.0, top_p=0.6)
    p = model(found, conditioning, lengths=LENGTHS).softmax(-1)
    ordered, order = p.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    nucleus = torch.zeros_like(p, dtype=torch.bool).scatter(-1, order, before < 0.6 + 1e-6)
    inside = torch.arange(10) < LENGTHS[:, None, None]
    assert nucleus.gather(-1, found[..., None])[..., 0][inside.expand_as(found)].all()
    unlikely = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    drawn = {int(draw(unlikely, 0.75, torch.tensor([u]))[0]) for u in (0.01, 0.3, 0.7, 0.999)}
    assert drawn == {0, 1}


def test_prompts_are_kept(model, conditioning) -> None:
    codes = torch.randint(0, V, (3, K, 10), generator=torch.Generator().manual_seed(1))
    keep = (torch.arange(10) < torch.tensor([4, 0, 9])[:, None, None]).expand_as(codes)
    made = run(model, conditioning, LENGTHS, codes=codes, keep=keep)
    inside = torch.arange(10) < LENGTHS[:, None, None]
    assert made[keep & inside].equal(codes[keep & inside])
    assert made[1].equal(run(model, conditioning, LENGTHS)[1])
    assert not made[0].equal(run(model, conditioning, LENGTHS)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda keep: keep[0, :, 4].fill_(True), "an autoregressive model only continues"),
        (lambda keep: keep[0, 1, :2].fill_(True), "an autoregressive model only continues"),
    ],
)
def test_gaps_are_refused(model, conditioning, change, message) -> None:
    codes, keep = torch.zeros(3, K, 10, dtype=torch.int64), torch.zeros(3, K, 10, dtype=torch.bool)
    change(keep)
    with pytest.raises(ValueError, match=message):
        run(model, conditioning, LENGTHS, codes=codes, keep=keep)
    with pytest.raises(ValueError, match="pass `codes` and `keep` together"):
        run(model, conditioning, LENGTHS, codes=codes)
    with pytest.raises(ValueError, match="a MASK among them"):
        run(model, None, LENGTHS[:1], codes=codes[:1] + V, keep=torch.ones(1, K, 10) > 0)


def test_codes_past_the_size_of_a_level_are_never_sampled(conditioning) -> None:
    sizes = (V, 3, 5)
    codec = CodecSpec("x", 16000, 320, K, V, level_sizes=sizes).as_dict()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DelayTransformer(
            n_codebooks=K, codebook_size=V, conditioning_dim=C, embedding="learned", dim=16,
            depth=1, heads=2, dim_head=16, codec=codec,
        ).eval()  # fmt: skip
    for level, size in enumerate(sizes):  # the model would like to
        model.head_bias.data[level, size:] = 50.0
    codes = run(model, conditioning, LENGTHS, scale=3.0, top_p=1.0)
    for level, size in enumerate(sizes):
        assert codes[:, level].max() < size
        assert len(codes[:, level].unique()) > 1
    keep = torch.ones_like(codes, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"of level 1 lie outside 0\.\.2"):
        run(model, conditioning, LENGTHS, codes=torch.full_like(codes, 3), keep=keep)
