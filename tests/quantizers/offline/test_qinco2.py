"""QINCo2: the published results, its start from k-means, and its training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from makers.vectors import load_vectors
from tokgen.nn.hashes import hash_weights
from tokgen.quantizers.offline.additive import ResidualKMeans
from tokgen.quantizers.offline.base import share_left
from tokgen.quantizers.offline.qinco2 import Qinco2
from tokgen.quantizers.offline.qinco2_network import PRESETS
from tokgen.quantizers.offline.qinco2_training import train_qinco2
from tokgen.quantizers.offline.settings import QincoTraining

SIZES = {"preset": None, "n_blocks": 1, "embedding_dim": 12, "hidden_dim": 16, "preselect": 4}
SHORT = QincoTraining(steps=6, batch_size=64, warmup=0, checkpoint_every=2, replace_every=3)


def curved_frames(n: int, seed: int = 0) -> Tensor:
    """Frames [n, 6] near a curved surface of two dimensions."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(n, 2, generator=generator)
    return torch.cat([u, torch.sin(2 * u), u.prod(1, keepdim=True), u.square()[:, :1]], 1)


def make_qinco(**more: object) -> Qinco2:
    torch.manual_seed(0)
    return Qinco2(dim=6, n_codebooks=3, codebook_size=16, **{**SIZES, **more})


@pytest.mark.parametrize(
    ("name", "preselect", "beam"),
    [("a4b3", 4, 3), ("a4b1", 4, 1), ("a0b1", 0, 1)],
)
def test_the_public_codes_losses_and_gradients_are_met(name, preselect, beam):
    vectors = load_vectors(f"qinco2_{name}")
    weights = {k.removeprefix("w."): v for k, v in vectors.items() if k.startswith("w.")}
    quantizer = Qinco2.from_public(weights, preselect)
    codes = quantizer.encode(vectors["x"], beam=beam)
    assert codes.T.equal(vectors["codes"])
    torch.testing.assert_close(quantizer.decode(codes), vectors["decoded"], atol=1e-5, rtol=0)

    error, light = quantizer(quantizer.normalised(vectors["x"]), vectors["train_codes"].T)
    assert error.item() == pytest.approx(vectors["loss_mse_loss"].item(), rel=1e-6)
    if preselect:
        assert light.item() == pytest.approx(vectors["loss_loss_substep"].item(), rel=1e-6)
    (error + light).backward()
    level = quantizer.levels[0]
    for name, weight in (
        ("codebook", level.rows), ("concat.mlp", level.concat.weight),
        ("residual_blocks.1.up_proj", level.up[1].weight),
        ("residual_blocks.0.down_proj", level.down[0].weight),
        ("in_proj", level.into.weight), ("out_proj", level.out.weight),
    ):  # fmt: skip
        torch.testing.assert_close(
            weight.grad, vectors[f"g.steps.1.{name}.weight"], atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("embedding_dim", [12, 0])
@pytest.mark.parametrize("preselect", [4, 0])
def test_it_starts_as_residual_k_means(embedding_dim, preselect):
    frames = curved_frames(500)
    quantizer = make_qinco(embedding_dim=embedding_dim, preselect=preselect)
    quantizer.start(frames, seed=3, progress=False)
    kmeans = ResidualKMeans(dim=6, n_codebooks=3, codebook_size=16)
    kmeans.fit(quantizer.normalised(frames), seed=3, progress=False)
    codes = quantizer.encode(frames)
    assert codes.equal(kmeans.encode(quantizer.normalised(frames)))
    torch.testing.assert_close(
        quantizer.normalised(quantizer.decode(codes)), kmeans.decode(codes), atol=1e-5, rtol=0
    )


def test_training_leaves_less_than_k_means():
    frames, held_out = curved_frames(4000), curved_frames(1000, seed=1)
    quantizer = make_qinco(hidden_dim=32)
    settings = QincoTraining(steps=250, batch_size=256, learning_rate=3e-3, validate_every=125)
    history = train_qinco2(quantizer, frames, settings, validation=held_out, progress=False)
    kmeans = ResidualKMeans(dim=6, n_codebooks=3, codebook_size=16)
    kmeans.fit(frames, progress=False)
    before = share_left(held_out, kmeans.decode(kmeans.encode(held_out)))
    assert [line["step"] for line in history] == [125, 250]
    assert history[-1]["share_left"] == share_left(
        held_out, quantizer.decode(quantizer.encode(held_out))
    )
    assert history[-1]["share_left"] < 0.95 * before


def test_more_of_the_preselection_and_of_the_beam_leave_less():
    frames = curved_frames(1000)
    quantizer = make_qinco()
    train_qinco2(quantizer, frames, SHORT, progress=False)

    def left(preselect: int, beam: int) -> float:
        quantizer.preselect = preselect
        return share_left(frames, quantizer.decode(quantizer.encode(frames, beam=beam)))

    assert left(16, 1) <= left(1, 1)
    assert left(4, 8) < left(4, 1)


def test_a_frame_keeps_greedy_codes_that_leave_less():
    frames = curved_frames(400)
    quantizer = make_qinco()
    quantizer.start(frames, 0, False)
    with torch.no_grad():
        for level in quantizer.levels:
            level.concat.weight.normal_(0, 0.3)
            level.out.weight.normal_(0, 0.3)

    def left(codes: Tensor) -> Tensor:
        return (quantizer.decode(codes) - frames).square().sum(1)

    greedy = left(quantizer.encode(frames))
    assert (left(quantizer.encode(frames, beam=3)) <= greedy).all()
    assert (left(quantizer.search(quantizer.normalised(frames), 3, 3)) > greedy).any()


def test_a_training_that_is_cut_ends_with_the_same_weights(tmp_path, monkeypatch):
    frames = curved_frames(500)
    whole, cut, again = make_qinco(), make_qinco(), make_qinco()
    train_qinco2(whole, frames, SHORT, folder=tmp_path / "whole", progress=False)

    forward, calls = Qinco2.forward, []

    def fails_at_the_sixth(self, target, codes):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return forward(self, target, codes)

    monkeypatch.setattr(Qinco2, "forward", fails_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        train_qinco2(cut, frames, SHORT, folder=tmp_path / "cut", progress=False)
    monkeypatch.setattr(Qinco2, "forward", forward)
    train_qinco2(again, frames, SHORT, folder=tmp_path / "cut", progress=False)
    a, b = whole.state_dict(), again.state_dict()
    assert all(a[name].equal(b[name]) for name in a)


def test_rows_that_no_frame_uses_are_replaced_by_frames():
    frames = curved_frames(600)
    quantizer = make_qinco()
    start = quantizer.start

    def start_far_away(*args: object) -> None:
        start(*args)
        with torch.no_grad():
            quantizer.levels[0].rows[5] = 100.0
            quantizer.levels[0].light[5] = 100.0
            quantizer.first[7] = -100.0

    quantizer.start = start_far_away
    train_qinco2(quantizer, frames, SHORT, progress=False)
    assert quantizer.levels[0].rows[5].abs().max() < 10
    assert quantizer.first[7].abs().max() < 10
    assert quantizer.levels[0].light[5].abs().max() < 10


def test_presets_have_the_sizes_of_the_paper():
    assert PRESETS["S"] == {"n_blocks": 2, "embedding_dim": 128, "hidden_dim": 256}
    large = Qinco2(dim=64, n_codebooks=2, codebook_size=256, preset="L")
    assert len(large.levels[0].up) == 16 and large.levels[0].up[0].weight.shape == (384, 384)
    for settings, message in (
        ({"preset": "XL"}, "preset 'XL': known are S, M, L"),
        ({"preselect": 300}, "preselect = 300: must be 0 .all. to 256"),
    ):
        with pytest.raises(ValueError, match=message):
            Qinco2(dim=64, codebook_size=256, **settings)


def test_the_preselection_is_part_of_the_weights_hash():
    assert hash_weights(make_qinco(preselect=4)) != hash_weights(make_qinco(preselect=8))


def test_equal_frames_are_refused():
    with pytest.raises(ValueError, match="all frames are equal"):
        make_qinco().fit(torch.ones(50, 6), progress=False)


def test_a_loss_that_is_not_finite_ends_the_training():
    settings = QincoTraining(steps=40, batch_size=64, learning_rate=1e30, clip=1e30)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        train_qinco2(make_qinco(), curved_frames(200), settings, progress=False)
