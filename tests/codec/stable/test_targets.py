"""Targets: a positive margin of every code is the same as the quantizer choosing these codes."""

from __future__ import annotations

import pytest
import torch

from makers.codecs import MAKERS, make_stft_codec
from tokgen.codec.stable.targets import CodeTargets

CODECS = {"stft": make_stft_codec} | {x: MAKERS[x] for x in ("dac-even", "encodec-24k")}


@pytest.mark.parametrize("name", CODECS)
def test_margins_agree_with_the_quantizer(name: str) -> None:
    codec = CODECS[name]()
    noise = torch.Generator().manual_seed(0)
    waveform = 0.3 * torch.randn(2, 1, codec.spec.hop_length * 20, generator=noise)
    with torch.no_grad():
        latents = torch.cat([codec.encode_latents(x) for x in waveform.split(1)])
        codes = codec.quantize(latents)
        targets = CodeTargets(codec.search_levels(), codes)
        loss, margin = targets.compare(targets.scores(latents), 0.0, 0.06)
        assert (margin > 0).all()
        other = codes.clone()
        other[:, 1, 5] = (codes[:, 1, 5] + 1) % codec.spec.codebook_size
        moved = CodeTargets(codec.search_levels(), other)
        loss, margin = moved.compare(moved.scores(latents), 0.0, 0.06)
    assert (margin[:, 1, 5] < 0).all() and (loss[:, 1, 5] > 0).all()
    assert (margin[:, :, :5] > 0).all() and (margin[:, 0] > 0).all()


def test_the_loss_ends_at_the_margin() -> None:
    codec = make_stft_codec(codebook_size=2)
    codes = torch.zeros(1, 4, 1, dtype=torch.long)
    targets = CodeTargets(codec.search_levels(), codes)
    for other, open_ in ((-0.19, True), (-0.21, False)):
        scores = torch.tensor([0.0, other]).expand(1, 4, 1, 2)
        loss, margin = targets.compare(scores, 0.2, 0.06)
        assert (loss > 0).all() == open_ and torch.allclose(margin, torch.tensor(-other))


def test_a_cut_has_the_targets_of_its_frames() -> None:
    codec = make_stft_codec()
    codes = torch.randint(60, (1, 4, 12), generator=torch.Generator().manual_seed(2))
    latents = torch.randn(1, 16, 12, generator=torch.Generator().manual_seed(3))
    whole = CodeTargets(codec.search_levels(), codes)
    part = whole.cut(3, 7)
    torch.testing.assert_close(part.scores(latents[..., 3:7]), whole.scores(latents)[:, :, 3:7])
