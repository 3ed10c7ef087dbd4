"""The factorised residual quantizer: consistency, gradients, initialisation from data."""

import pytest
import torch

from tokgen.quantizers.residual import ResidualQuantizer


def make(dropout=0.0, seed=0, **settings):
    torch.manual_seed(seed)
    sizes = {"latent_dim": 16, "n_codebooks": 4, "codebook_size": 32, "codebook_dim": 4}
    return ResidualQuantizer(**{**sizes, **settings}, dropout=dropout)


def frames(n=2000, seed=0):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(16, 16, generator=g)
    return torch.randn(n, 16, generator=g) @ mix


def test_forward_encode_and_decode_agree():
    q = make().eval()
    latents = torch.randn(2, 16, 30)
    out = q(latents)
    codes, projected = q.encode(latents)
    assert codes.equal(out.codes) and codes.shape == (2, 4, 30)
    torch.testing.assert_close(projected, out.projected_latents)
    torch.testing.assert_close(q.decode(codes), out.quantized)
    assert q.codebook_rows(codes).shape == projected.shape == (2, 16, 30)


def test_lookup_is_the_smallest_angle():
    level = make().levels[0]
    projected = torch.randn(50, 4)
    cosine = torch.nn.functional.cosine_similarity(
        projected[:, None], level.codebook.weight[None], dim=-1
    )
    assert level.lookup(projected).equal(cosine.argmax(-1))
    assert level.lookup(projected * 7).equal(level.lookup(projected))


def test_coarse_levels_are_a_prefix():
    q = make().eval()
    codes, _ = q.encode(torch.randn(1, 16, 9))
    by_hand = sum(
        level.out_proj(level.codebook(codes[:, k])) for k, level in enumerate(q.levels[:2])
    ).mT
    torch.testing.assert_close(q.decode(codes[:, :2]), by_hand)


def test_gradient_passes_straight_through_and_losses_split():
    q = make()
    latents = torch.randn(2, 16, 8, requires_grad=True)
    out = q(latents)
    out.quantized.sum().backward(retain_graph=True)
    assert latents.grad is not None and latents.grad.abs().sum() > 0
    rows = q.levels[0].codebook.weight
    assert rows.grad is None or rows.grad.abs().sum() == 0  # only the codebook loss moves rows
    out.commitment_loss.backward(retain_graph=True)
    assert rows.grad is None or rows.grad.abs().sum() == 0
    out.codebook_loss.backward()
    assert rows.grad.abs().sum() > 0


def test_initialised_levels_leave_less_and_less_energy():
    data = frames()
    q = make(codebook_size=64)
    random = torch.nn.functional.mse_loss(q.decode(q.encode(data.T[None])[0])[0].T, data)
    left = q.init_from_data(data)
    assert all(b < a for a, b in zip([1.0, *left.tolist()], left.tolist(), strict=False))
    started = torch.nn.functional.mse_loss(q.decode(q.encode(data.T[None])[0])[0].T, data)
    assert started < 0.5 * data.var() < random
    assert started.item() == pytest.approx(left[-1].item() * data.var(0).mean().item(), rel=0.05)
    use = torch.bincount(q.encode(data.T[None])[0][0, 0], minlength=64)
    assert (use > 0).float().mean() > 0.9


def test_initialisation_needs_as_many_frames_as_rows():
    with pytest.raises(ValueError, match="10 frames for 32 codebook rows"):
        make().init_from_data(frames(10))


def test_dropout_keeps_a_random_number_of_levels_in_training_only():
    q = make(dropout=1.0)
    latents = torch.randn(400, 16, 2)
    codes, _ = q.encode(latents)
    full = q.decode(codes)
    partial = torch.stack([q.decode(codes[:, : k + 1]) for k in range(4)])
    out = q(latents).quantized
    near = (partial - out).abs().amax((2, 3)) < 1e-5  # [levels, items]
    assert near.sum(0).eq(1).all()
    shares = near.float().mean(1)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.08)
    torch.testing.assert_close(q.eval()(latents).quantized, full)


def test_losses_are_sums_over_levels():
    q = make().eval()
    latents = torch.randn(2, 16, 30)
    out = q(latents)
    rows = q.codebook_rows(out.codes)
    errors = (out.projected_latents - rows).unflatten(1, (4, 4)).square().mean((0, 2, 3))
    assert len(errors) == 4 and errors.min() > 0
    torch.testing.assert_close(out.commitment_loss, errors.sum())
    torch.testing.assert_close(out.codebook_loss, errors.sum())
