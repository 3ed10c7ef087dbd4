"""The EMA quantizer: the reference's outputs, averages, dead codes, gradients, start from data."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from makers.vectors import load_vectors
from tokgen.quantizers.ema import EmaQuantizer


def make(seed: int = 0, **more) -> EmaQuantizer:
    torch.manual_seed(seed)
    sizes = {"latent_dim": 6, "n_codebooks": 3, "codebook_size": 8}
    return EmaQuantizer(**{**sizes, **more})


def latents_of(seed: int, batch: int = 4, frames: int = 30) -> Tensor:
    return torch.randn(batch, 6, frames, generator=torch.Generator().manual_seed(seed))


def layers_of(levels: int = 3) -> list:
    """Empty levels of a model of transformers."""
    config = EncodecConfig(
        num_filters=2, hidden_size=6, codebook_size=8, target_bandwidths=[0.225 * levels]
    )
    return list(EncodecModel(config).quantizer.layers)[:levels]


def test_codes_loss_and_its_gradient_of_the_reference():
    """audiocraft's ResidualVectorQuantizer, which has the commitment gradient of every level."""
    v = load_vectors("audiocraft_losses")
    layers = layers_of()
    for k, layer in enumerate(layers):
        for name in ("embed", "embed_avg", "cluster_size"):
            getattr(layer.codebook, name).copy_(v[f"rvq_init.layers.{k}._codebook.{name}"])
    quantizer = make()
    quantizer.copy_from(layers)
    before = 0.0
    for k in range(3):
        z = v["rvq_z"].clone().requires_grad_()
        out = quantizer(z, k + 1, learn=False)
        assert out.codes.equal(v["rvq_codes"][: k + 1].transpose(0, 1))
        gradient = torch.autograd.grad(out.commitment_loss, z, retain_graph=True)[0]
        torch.testing.assert_close(out.commitment_loss - before, v["rvq_loss"][k, 0])
        expected = sum(v[f"rvq_commit_grad{j}"] for j in range(k + 1))
        torch.testing.assert_close(gradient, expected)
        before = out.commitment_loss.detach()
    torch.testing.assert_close(out.quantized.detach(), v["rvq_q"], atol=1e-5, rtol=1e-5)
    straight = torch.autograd.grad(out.quantized.sum(), z)[0]
    torch.testing.assert_close(straight, torch.ones_like(z))


def test_levels_that_are_not_kept_add_nothing_and_leave_their_residual():
    quantizer, z = make(), latents_of(1).requires_grad_()
    quantizer(latents_of(0))
    quantizer.eval()
    depth = torch.randint(1, 4, (4, 30), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(3)[:, None] < depth[:, None]).float().requires_grad_()
    every, out = quantizer(z), quantizer(z, mask=mask)
    assert out.codes.equal(every.codes)
    rows = torch.stack(
        [level.codebook[c] for level, c in zip(quantizer.levels, out.codes.unbind(1), strict=True)]
    )  # [K, B, T, D]
    kept = (rows * mask.transpose(0, 1)[..., None]).sum(0)
    torch.testing.assert_close(out.quantized.mT, kept)
    residual = z.mT - torch.cat([torch.zeros_like(rows[:1]), rows[:-1].cumsum(0)])
    expected = (mask.transpose(0, 1)[..., None] * (residual - rows) ** 2).mean((1, 2, 3)).sum()
    torch.testing.assert_close(out.commitment_loss, expected)
    by_mask, by_z = torch.autograd.grad(out.quantized.sum(), [mask, z])
    torch.testing.assert_close(by_mask, rows.sum(-1).transpose(0, 1))
    torch.testing.assert_close(by_z, torch.ones_like(z))  # straight through


def test_codebooks_follow_all_frames_kept_or_not():
    plain, masked = make(), make()
    for quantizer, mask in ((plain, None), (masked, torch.zeros(4, 3, 30))):
        torch.manual_seed(3)
        quantizer(latents_of(0))
        quantizer(latents_of(1), mask=mask)
    for a, b in zip(plain.state_dict().values(), masked.state_dict().values(), strict=True):
        assert a.equal(b)


def test_every_level_has_a_commitment_gradient_and_the_output_one_straight_through():
    quantizer = make()
    z = latents_of(1).requires_grad_()
    norms, before = [], torch.zeros_like(z)
    for k in (1, 2, 3):
        out = quantizer(z, k, learn=False)
        gradient = torch.autograd.grad(out.commitment_loss, z, retain_graph=True)[0]
        norms.append(float((gradient - before).norm()))
        before = gradient
    assert min(norms) > 1e-3
    straight = torch.autograd.grad(out.quantized.sum(), z)[0]
    torch.testing.assert_close(straight, torch.ones_like(z))


def test_entries_move_to_the_mean_of_what_chose_them():
    quantizer = make(n_codebooks=1, decay=0.5, dead_below=0.0)
    quantizer(latents_of(0))
    codebook = quantizer.levels[0]._codebook
    counts, sums = codebook.cluster_size[0].clone(), codebook.embed_avg[0].clone()
    z = latents_of(1)
    codes = quantizer(z).codes[:, 0].flatten()
    frames = z.mT.flatten(0, 1)
    for entry in range(8):
        mine = frames[codes == entry]
        counts[entry] = 0.5 * counts[entry] + 0.5 * len(mine)
        sums[entry] = 0.5 * sums[entry] + 0.5 * mine.sum(0)
    torch.testing.assert_close(codebook.cluster_size[0], counts)
    torch.testing.assert_close(codebook.embed_avg[0], sums)
    torch.testing.assert_close(codebook.embed[0], sums / counts[:, None], rtol=1e-3, atol=1e-3)


def test_a_dead_entry_is_replaced_and_lives_on():
    """The entry, its sum and its count: else the next average would put it back."""
    quantizer = make(n_codebooks=1)
    z = latents_of(0, frames=200)
    quantizer(z)
    codebook = quantizer.levels[0]._codebook
    codebook.embed[0, 3], codebook.embed_avg[0, 3], codebook.cluster_size[0, 3] = 50.0, 50.0, 1.0
    quantizer(z)
    frames = z.mT.flatten(0, 1)
    assert (frames == codebook.embed[0, 3]).all(1).any()  # it is a latent of the batch
    torch.testing.assert_close(codebook.embed_avg[0, 3], 2 * codebook.embed[0, 3])
    assert codebook.cluster_size[0, 3] == 2
    quantizer(z)
    assert codebook.embed[0, 3].abs().max() < 10
    assert (quantizer(z).codes == 3).any()


def test_codebooks_start_from_the_first_batch():
    z = latents_of(0, batch=1, frames=8)  # as many frames as entries: each becomes an entry
    out = make(n_codebooks=1)(z)
    torch.testing.assert_close(out.quantized, z, atol=1e-2, rtol=1e-2)
    left = make().init_from_data(latents_of(0).mT.flatten(0, 1))
    assert left.tolist() == sorted(left.tolist(), reverse=True) and left[0] < 0.8


def test_codebooks_stay_in_eval_mode_and_without_learning():
    quantizer = make()
    quantizer(latents_of(0))
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(latents_of(1), learn=False)
    quantizer.eval()(latents_of(1))
    for name, value in quantizer.state_dict().items():
        assert value.equal(before[name]), name


def test_codebooks_go_to_transformers_and_back():
    quantizer, layers = make(), layers_of()
    for seed in range(3):
        quantizer(latents_of(seed))
    quantizer.copy_to(layers)
    again = make(seed=1)
    again.copy_from(layers)
    z = latents_of(5)
    assert again.eval()(z).codes.equal(quantizer.eval()(z).codes)
    for a, b in zip(again.state_dict().values(), quantizer.state_dict().values(), strict=True):
        assert a.equal(b)


def test_codebooks_without_counts_do_not_die_at_once():
    quantizer, layers = make(), layers_of()
    for layer in layers:
        layer.codebook.embed.normal_()
    quantizer.copy_from(layers)
    quantizer(latents_of(0))
    codebook = quantizer.levels[0]._codebook
    torch.testing.assert_close(codebook.embed[0], layers[0].codebook.embed, atol=0.2, rtol=0.2)


def test_fewer_frames_than_entries_print_nothing(capfd):
    make()(latents_of(0, batch=1, frames=3))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("n", [1, 2, 3])
def test_codes_of_fewer_levels_are_a_prefix(n):
    quantizer = make()
    quantizer(latents_of(0))
    quantizer.eval()
    z = latents_of(1)
    assert quantizer(z, n).codes.equal(quantizer(z).codes[:, :n])
