"""The variable bitrate: reference outputs and gradients, depths, scales, training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from makers.vectors import load_vectors
from tokgen.codec.depth import depth_of, scale_for
from tokgen.quantizers.residual import ResidualQuantizer
from tokgen.quantizers.settings import NETWORKS, SURROGATES, VariableSettings
from tokgen.quantizers.variable import (
    ImportanceNetwork,
    allocate,
    quantize_variable,
    surrogate,
)

K = 4


def make_quantizer(**more) -> ResidualQuantizer:
    torch.manual_seed(0)
    sizes = {"latent_dim": 16, "n_codebooks": K, "codebook_size": 32, "codebook_dim": 4}
    return ResidualQuantizer(**{**sizes, **more})


def make_network() -> ImportanceNetwork:
    torch.manual_seed(0)
    return ImportanceNetwork(12, widths=(8, 4))


def importance_of(*shape: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    return torch.sigmoid(spread * noise(*shape, seed=seed))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs, retain_graph=True))


def test_the_surrogate_and_its_gradient_are_those_of_the_reference():
    v = load_vectors("vrvq_surrogate")
    assert len(v["alpha"]) == 90
    for i, alpha in enumerate(v["alpha"].tolist()):
        p = v["p"][i].clone().requires_grad_()
        s = p * v["level"][i] * 8
        torch.testing.assert_close(s, v["s"][i], atol=1e-8, rtol=0)
        found = surrogate(s - torch.arange(8), "logcosh", alpha)
        torch.testing.assert_close(found, v["surrogate"][i], atol=1e-8, rtol=0)
        by_p = torch.stack([gradients(f, p)[0] for f in found])
        torch.testing.assert_close(by_p, v["dmask_dp"][i], atol=1e-8, rtol=0)
        by_s = torch.stack([gradients(f, s)[0] for f in found])
        torch.testing.assert_close(by_s, v["dmask_ds"][i], atol=1e-8, rtol=0)
        depth = depth_of(v["p"][i][None, None], float(v["level"][i]), 8)
        assert torch.equal(torch.arange(8) < depth[0], v["mask"][i].bool())


def of_the_reference(v: dict[str, Tensor]) -> tuple[ResidualQuantizer, ImportanceNetwork]:
    """The quantizer and the importance network with the weights of the vectors."""
    quantizer = make_quantizer(codebook_size=8)
    network = ImportanceNetwork(16, "public", (8, 4))
    with torch.no_grad():
        for k, level in enumerate(quantizer.levels):
            for name in ("in_proj", "out_proj"):
                w = {x: v[f"w.quantizers.{k}.{name}.{x}"] for x in ("weight_g", "weight_v", "bias")}
                normed = w["weight_v"] / w["weight_v"].norm(dim=(1, 2), keepdim=True)
                getattr(level, name).weight.copy_((w["weight_g"] * normed)[..., 0])
                getattr(level, name).bias.copy_(w["bias"])
            level.codebook.weight.copy_(v[f"w.quantizers.{k}.codebook.weight"])
        for layer, name in zip(network.layers, BLOCKS, strict=True):
            layer.alpha.copy_(v[f"w.imp_subnet.{name}.0.alpha"].flatten())
            for x in ("weight_g", "weight_v", "bias"):
                getattr(layer, x).copy_(v[f"w.imp_subnet.{name}.1.{x}"])
    return quantizer, network


BLOCKS = ("in_block", "blocks.0", "blocks.1", "blocks.2")


def test_the_quantizer_and_its_gradients_are_those_of_the_reference():
    v = load_vectors("vrvq_quantizer")
    quantizer, network = of_the_reference(v)
    z, feature = v["z"].clone().requires_grad_(), v["feat"].clone().requires_grad_()
    settings, scale = VariableSettings(full_share=0.25), v["levels"].flatten()
    out = quantize_variable(quantizer.levels, z, network(feature), settings, scale)
    assert out.codes.equal(v["codes"])
    assert torch.equal(torch.arange(K)[:, None] < out.depth[:, None], v["mask"].bool())

    def close(ours, theirs):
        torch.testing.assert_close(ours, theirs.to(ours.dtype), atol=1e-5, rtol=1e-5)

    close(out.importance[:6], v["imp_map"][:, 0])
    close(out.quantized, v["z_q"])
    close(out.commitment_loss, v["commitment"])
    close(out.codebook_loss, v["codebook"])
    close(out.rate_loss, v["rate"])
    loss = torch.nn.functional.mse_loss(out.quantized, v["target"])
    loss = loss + 0.25 * out.commitment_loss + out.codebook_loss + 2 * out.rate_loss
    close(loss, v["loss"])
    loss.backward()
    close(z.grad, v["grad_z"])
    close(feature.grad, v["grad_feat"])
    for k, level in enumerate(quantizer.levels):
        close(level.codebook.weight.grad, v[f"g.quantizers.{k}.codebook.weight"])
        for name in ("in_proj", "out_proj"):
            layer, key = getattr(level, name), f"quantizers.{k}.{name}"
            close(layer.bias.grad, v[f"g.{key}.bias"])
            g, w = (v[f"w.{key}.weight_{x}"].clone().requires_grad_() for x in "gv")
            (g * w / w.norm(dim=(1, 2), keepdim=True)).backward(layer.weight.grad[..., None])
            close(g.grad, v[f"g.{key}.weight_g"])
            close(w.grad, v[f"g.{key}.weight_v"])
    for layer, name in zip(network.layers, BLOCKS, strict=True):
        close(layer.alpha.grad, v[f"g.imp_subnet.{name}.0.alpha"].flatten())
        for x in ("weight_g", "weight_v", "bias"):
            close(getattr(layer, x).grad, v[f"g.imp_subnet.{name}.1.{x}"])

    codes, _ = quantizer.encode(v["z"])
    importance = network(v["feat"])
    assert codes.equal(v["eval_codes"])
    close(importance, v["eval_imp_map"][:, 0])
    for scale in (0.5, 1.0, 3.0):
        depth = depth_of(importance, scale, K)
        mask = torch.arange(K)[:, None] < depth[:, None]
        assert mask.equal(v[f"eval_{scale}_mask"].bool())
        close(quantizer.decode(codes, depth), v[f"eval_{scale}_z_q"])


@pytest.mark.parametrize("kind", SURROGATES)
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 2.0, 128.0, 1e4])
def test_surrogates_are_finite_and_rise(kind, alpha):
    x = torch.linspace(-50, 50, 2001).requires_grad_()
    found = surrogate(x, kind, alpha)
    slope = gradients(found.sum(), x)[0]
    assert found.isfinite().all() and slope.isfinite().all()
    assert (slope >= 0).all() and found[-1] >= found[0]


def test_a_sharp_surrogate_is_a_ramp():
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    torch.testing.assert_close(
        surrogate(x, "logcosh", 1e4), (x + 0.5).clamp(0, 1), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("kind", "reach", "layers"), [("paper", 5, 5), ("public", 6, 6)])
def test_the_networks_of_the_paper_and_of_the_authors_code(kind, reach, layers):
    torch.manual_seed(0)
    network = ImportanceNetwork(1024, kind)
    shapes = [tuple(layer.weight_v.shape) for layer in network.layers]
    narrow = [(512, 1024), (128, 512), (32, 128), (8, 32), (1, 8)]
    assert [s[:2] for s in shapes] == [(1024, 1024), *narrow][-layers:]
    assert tuple(s[2] for s in shapes) == NETWORKS[kind]
    assert network.reach == reach
    weights = sum(p.numel() for n, p in network.named_parameters() if "weight_g" not in n)
    assert weights / 1e6 == pytest.approx({"paper": 2.83, "public": 4.93}[kind], abs=0.01)
    feature = noise(1, 1024, 40)
    before = network(feature)
    assert before.min() > 0.4 and before.max() < 0.6  # it starts near one half
    feature[..., 20] += 1
    changed = (network(feature) != before)[0].nonzero().flatten()
    assert changed[0] == 20 - reach and changed[-1] == 20 + reach


@given(scale=st.floats(0.01, 20), seed=st.integers(0, 1000), kind=st.sampled_from(SURROGATES))
@settings(max_examples=30, deadline=None)
def test_masks_are_prefixes_and_the_depth_counts_them(scale, seed, kind):
    how = VariableSettings(surrogate=kind, dropout_share=0.25)
    out = allocate(importance_of(8, 9, seed=seed), K, how, scale)
    assert set(out.mask.unique().tolist()) <= {0.0, 1.0}
    assert (out.mask[:, 1:] <= out.mask[:, :-1]).all() and (out.mask[:, 0] == 1).all()
    assert out.mask.sum(1).long().equal(out.depth)


@given(low=st.floats(0.01, 20), high=st.floats(0.01, 20), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_depth_grows_with_the_scale(low, high, seed):
    importance = importance_of(1, 50, seed=seed)
    low, high = sorted((low, high))
    assert (depth_of(importance, low, 8) <= depth_of(importance, high, 8)).all()
    assert depth_of(importance, 1e-6, 8).eq(1).all() and depth_of(importance, 1e6, 8).eq(8).all()


def test_the_mean_depth_grows_with_the_scale():
    importance = make_network()(noise(1, 12, 200))
    means = [depth_of(importance, s, K).float().mean() for s in (0.1, 0.5, 1.0, 1.5, 3.0)]
    assert means[0] == 1 and means[-1] == K and means == sorted(means) and len(set(means)) > 3


@given(st.floats(1, 8), st.integers(0, 1000), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_a_scale_for_a_mean_depth(wanted, seed, frames):
    importance = importance_of(frames, seed=seed)
    scale = scale_for(importance, wanted, 8)
    found = depth_of(importance[None], scale, 8).double().mean()
    assert abs(found - wanted) <= 0.501 / frames


@pytest.mark.parametrize("wanted", [0.9, 8.1])
def test_a_mean_depth_out_of_range(wanted):
    with pytest.raises(ValueError, match=f"mean_depth = {wanted}: must be 1 to 8"):
        scale_for(torch.rand(5), wanted, 8)


def test_one_encode_serves_every_scale_and_codes_do_not_depend_on_the_depth():
    quantizer, network = make_quantizer(), make_network()
    latents, feature = noise(2, 16, 30), noise(2, 12, 30, seed=1)
    codes, _ = quantizer.encode(latents)
    importance, seen = network(feature), set()
    for scale in (0.3, 1.0, 1.4, 9.0):
        how = VariableSettings(full_share=0.0)
        out = quantize_variable(quantizer.levels, latents, network(feature), how, scale)
        depth = depth_of(importance, scale, K)
        assert out.depth.equal(depth) and out.codes.equal(codes)
        torch.testing.assert_close(out.quantized, quantizer.decode(codes, depth))
        outside = torch.arange(K)[:, None] >= depth[:, None]
        other = torch.where(outside, torch.zeros_like(codes), codes)
        assert quantizer.decode(other, depth).equal(quantizer.decode(codes, depth))
        seen |= set(depth.unique().tolist())
    assert seen == {1, 2, 3, 4}
    assert quantizer.decode(codes, torch.full((2, 30), K)).equal(quantizer.decode(codes))
    two = torch.full((2, 30), 2)
    torch.testing.assert_close(quantizer.decode(codes, two), quantizer.decode(codes[:, :2]))


def test_padding_and_other_items_do_not_change_the_importance():
    network = make_network()
    clips = [noise(1, 12, n, seed=n) for n in (5, 33, 80)]
    alone = [network(clip)[0] for clip in clips]
    batch = torch.cat([torch.nn.functional.pad(c, (0, 80 - c.shape[-1]), value=3) for c in clips])
    inside = torch.arange(80) < torch.tensor([[5], [33], [80]])
    for one, all_together, clip in zip(alone, network(batch, inside), clips, strict=True):
        assert all_together[: clip.shape[-1]].equal(one)


def test_the_parts_of_a_batch():
    how = VariableSettings(full_share=0.25, dropout_share=0.5)
    importance = importance_of(8, 20).requires_grad_()
    out = allocate(importance, K, how, 1.0)
    assert out.depth[:2].equal(depth_of(importance, 1.0, K)[:2])
    assert out.rate_loss.equal(importance[:2].mean())
    for depth in out.depth[2:6]:
        assert len(depth.unique()) == 1  # the whole item
    assert out.depth[6:].eq(K).all()
    seen = {int(n) for _ in range(30) for n in allocate(importance, K, how).depth[2:6, 0]}
    assert seen == {1, 2, 3, 4}
    for loss in ((out.mask * noise(8, K, 20)).sum(), out.rate_loss):
        by_item = gradients(loss, importance)[0].abs().sum(1) > 0
        assert by_item.tolist() == [True] * 2 + [False] * 6
    scales = torch.linspace(0.1, 4, 8)
    one_each = allocate(importance, K, VariableSettings(full_share=0.0), scales).depth
    for i, scale in enumerate(scales.tolist()):
        assert one_each[i].equal(depth_of(importance[i : i + 1], scale, K)[0])


@pytest.mark.parametrize("log_scales", [False, True])
def test_each_item_draws_a_scale_of_its_own(log_scales):
    how = VariableSettings(scales=(0.1, 6.0), log_scales=log_scales, full_share=0.0)
    torch.manual_seed(0)
    depth = allocate(torch.full((10_000, 1), 0.999), 64, how).depth / 64
    wanted = (0.1 * 6.0) ** 0.5 if log_scales else 6.1 / 2  # the median
    assert (depth > min(wanted, 1) - 0.02).float().mean() > 0.49
    assert (depth < min(wanted, 1)).float().mean() == pytest.approx(
        0.5 if log_scales else 0.9 / 5.9, abs=0.03
    )
    assert depth.min() == pytest.approx(0.1, abs=0.02) and depth.max() == 1


def test_levels_that_are_off_have_no_loss_but_are_asked_whether_they_would_help():
    quantizer, network = make_quantizer(), make_network()
    latents, feature = noise(4, 16, 10), noise(4, 12, 10).requires_grad_()
    how = VariableSettings(full_share=0.0)
    out = quantize_variable(
        quantizer.levels, latents, network(feature), how, 1e-4
    )  # one level each
    only = quantizer(latents, torch.eye(K)[:1].T.expand(4, K, 10))
    assert out.commitment_loss.equal(only.commitment_loss)
    loss = out.commitment_loss + out.codebook_loss
    last = quantizer.levels[-1]
    assert gradients(loss, last.codebook.weight)[0].abs().max() == 0
    assert gradients(out.quantized.sum(), last.out_proj.weight)[0].abs().max() == 0
    assert gradients(out.quantized.sum(), feature)[0].abs().max() > 0


@pytest.mark.parametrize("kind", SURROGATES)
@pytest.mark.parametrize("alpha", [2.0, 128.0])
def test_training_spends_levels_where_they_help(kind, alpha):
    """Half of the frames are far from 0; the others are silent, and one level serves them."""
    quantizer, network = make_quantizer(), make_network()
    how = VariableSettings(surrogate=kind, alpha=alpha, full_share=0.0, scales=(0.5, 2.0))
    loud = (torch.arange(40) // 10 % 2).float()
    latents = noise(8, 16, 40) * (0.02 + 3 * loud)
    quantizer.init_from_data(latents.mT.flatten(0, 1))
    feature = torch.cat([latents[:, :11], loud.expand(8, 1, 40)], 1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(100):
        out = quantize_variable(quantizer.levels, latents, network(feature), how)
        loss = (out.quantized - latents).square().mean() + 0.3 * out.rate_loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
    importance = network(feature).detach()
    silent, rich = (importance[:, loud == x].mean().item() for x in (0, 1))
    assert rich > silent + 0.1


def test_autocast_changes_nothing():
    network, feature = make_network(), noise(2, 12, 9)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(feature)
    assert found.dtype == torch.float32 and found.equal(network(feature))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"surrogate": "cubic"}, "surrogate 'cubic': known are logcosh, square, sigmoid"),
        ({"network": "huge"}, "network 'huge': known are paper, public"),
        ({"alpha": 0.0}, "alpha = 0.0: must be above 0 and finite"),
        ({"scales": (2.0, 1.0)}, "must be above 0, the lowest first"),
        ({"full_share": 0.5, "dropout_share": 0.5}, "dropout_share = 1: must be below 1"),
        ({"full_share": -0.1}, "full_share is -0.1, but must be at least 0"),
    ],
)
def test_wrong_settings(more, message):
    with pytest.raises(ValueError, match=message):
        VariableSettings(**more)


def test_wrong_networks():
    with pytest.raises(ValueError, match="importance network 'huge': known are paper, public"):
        ImportanceNetwork(4, "huge")
    with pytest.raises(ValueError, match=r"widths = \(\): must be one to 4 numbers"):
        ImportanceNetwork(4, widths=())
