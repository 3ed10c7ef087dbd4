"""Targets: a positive margin of every code is the same as the quantizer choosing these codes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from makers.codecs import MAKERS, make_stft_codec
from tokgen.codec.stable.targets import CodeTargets
from tokgen.quantizers.beam import Level

OTHERS = ("dac-even", "encodec-24k", "bigcodec", "wavtokenizer")  # the last two have one level
CODECS = {"stft": make_stft_codec} | {x: MAKERS[x] for x in OTHERS}


@pytest.mark.parametrize("name", CODECS)
def test_margins_agree_with_the_quantizer(name: str) -> None:
    codec = CODECS[name]()
    noise = torch.Generator().manual_seed(0)
    waveform = 0.3 * torch.randn(2, 1, codec.spec.hop_length * 20, generator=noise)
    with torch.no_grad():
        latents = torch.cat([codec.encode_latents(x) for x in waveform.split(1)])
        codes = codec.quantize(latents)
        targets = CodeTargets(codec.search_levels(), codes)
        loss, margin = targets.compare(latents, 0.0, 0.06)
        assert (margin > 0).all()
        other, level = codes.clone(), min(1, codec.spec.n_codebooks - 1)
        other[:, level, 5] = (codes[:, level, 5] + 1) % codec.spec.codebook_size
        moved = CodeTargets(codec.search_levels(), other)
        loss, margin = moved.compare(latents, 0.0, 0.06)
    assert (margin[:, level, 5] < 0).all() and (loss[:, level, 5] > 0).all()
    assert (margin[:, :, :5] > 0).all() and (margin[:, :level] > 0).all()


@pytest.mark.parametrize("name", CODECS)
def test_the_loss_is_the_cross_entropy_with_its_gradient(name: str) -> None:
    codec = CODECS[name]()
    noise = torch.Generator().manual_seed(0)
    spec, levels = codec.spec, codec.search_levels()
    codes = torch.randint(spec.codebook_size, (2, spec.n_codebooks, 7), generator=noise)
    width = levels[0].outputs.shape[1]
    latents = torch.randn(2, width, 7, generator=noise).requires_grad_()

    found, margin = CodeTargets(levels, codes).compare(latents, 0.2, 0.5)
    residual, expected, leads = latents.mT, [], []
    for k, level in enumerate(levels):
        scores = _scores(level, residual) / 0.5
        cross = F.cross_entropy(scores.flatten(0, 1), codes[:, k].flatten(), reduction="none")
        expected.append(F.relu(cross - math.log1p(math.exp(-0.2 / 0.5))).view(2, 7))
        wanted = F.one_hot(codes[:, k], spec.codebook_size).bool()
        others = scores.masked_fill(wanted, -torch.inf).amax(-1)
        leads.append(0.5 * ((scores * wanted).sum(-1) - others))
        residual = residual - level.outputs[codes[:, k]]

    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(margin, torch.stack(leads, 1), rtol=1e-4, atol=1e-4)
    weights = torch.rand(found.shape, generator=noise)
    (slope,) = torch.autograd.grad((weights * found).sum(), latents)
    (right,) = torch.autograd.grad((weights * torch.stack(expected, 1)).sum(), latents)
    torch.testing.assert_close(slope, right, rtol=1e-3, atol=1e-4)


def _scores(level: Level, residual: Tensor) -> Tensor:
    """Negative squared distances in the unit of the targets, up to a constant."""
    rows = F.normalize(level.rows, dim=-1) if level.by_angle else level.rows
    apart = torch.cdist(rows, rows).square().fill_diagonal_(torch.inf).amin(-1).mean()
    if level.weight is not None:
        residual = residual @ level.weight.T + level.bias
    if level.by_angle:
        residual = F.normalize(residual, dim=-1)
    squares = -(residual[..., None, :] - rows).square().sum(-1)
    return (squares + residual.square().sum(-1, keepdim=True)) / apart


def test_the_loss_ends_at_the_margin() -> None:
    """The rows lie at 0 and 1, and half their squared distance is the unit."""
    level = Level(torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1))
    targets = CodeTargets([level], torch.zeros(1, 1, 1, dtype=torch.long))
    for lead, open_ in ((0.19, True), (0.21, False)):
        latents = torch.full((1, 1, 1), (1 - lead) / 2)
        loss, margin = targets.compare(latents, 0.2, 0.06)
        assert (loss.item() > 0) == open_
        assert margin.item() == pytest.approx(lead, abs=1e-5)


def test_a_cut_has_the_targets_of_its_frames() -> None:
    codec = make_stft_codec()
    codes = torch.randint(60, (1, 4, 12), generator=torch.Generator().manual_seed(2))
    latents = torch.randn(1, 16, 12, generator=torch.Generator().manual_seed(3))
    whole = CodeTargets(codec.search_levels(), codes)
    part = whole.cut(3, 7)
    for a, b in zip(
        part.compare(latents[..., 3:7], 0.2, 0.5), whole.compare(latents, 0.2, 0.5), strict=True
    ):
        torch.testing.assert_close(a, b[..., 3:7])
