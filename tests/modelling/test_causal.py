"""The causal models: no code depends on itself or on later codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from makers.causal import LEVELS, SIZE, make_depth_network
from makers.codecs import make_stft_codec
from makers.training import make_tokens
from tokgen.modelling.causal import CausalTransformer, code_bits, sinusoids
from tokgen.modelling.causal_depth import CausalDepthNetwork


def make_transformer(**more):
    torch.manual_seed(0)
    sizes = {"dim": 16, "heads": 2, "depth": 2, "context": 3, **more}
    return CausalTransformer(n_codebooks=LEVELS, codebook_size=SIZE, **sizes).eval()


def changed_rows(model, level: int, frame: int) -> np.ndarray:
    """Which logits [K, T] change with one code."""
    codes = torch.randint(0, SIZE, (1, LEVELS, 12), generator=torch.Generator().manual_seed(1))
    other = codes.clone()
    other[0, level, frame] = (other[0, level, frame] + 1) % SIZE
    with torch.no_grad():
        return (model(codes) - model(other))[0].abs().amax(-1).gt(0).numpy()


@pytest.mark.parametrize("level", range(LEVELS))
def test_the_transformer_sees_earlier_frames_only(level):
    changed = changed_rows(make_transformer(), level, 4)
    assert not changed[:, :5].any() and changed[:, 5].all()


def test_the_transformer_forgets_frames_beyond_its_context():
    changed = changed_rows(make_transformer(depth=1), 0, 4)
    assert changed[0].nonzero()[0].tolist() == [5, 6, 7, 8]  # the newest input and 3 before it


def test_positions_have_cosines_first():
    found = sinusoids(torch.arange(3), 4)
    steps = np.array([1.0, 10000.0])
    phase = np.arange(3)[:, None] / steps
    np.testing.assert_allclose(found, np.concatenate([np.cos(phase), np.sin(phase)], 1), atol=1e-6)


@pytest.mark.parametrize("level", range(LEVELS))
def test_the_depth_network_sees_earlier_frames_and_lower_levels_only(level):
    model = make_depth_network()
    changed = changed_rows(model, level, 3)
    assert not changed[:, :3].any() and not changed[: level + 1, 3].any()
    assert changed[level + 1 :, 3].all() and changed[:, 4].all()
    assert not changed[:, 4 + model.reach :].any() and changed[:, 3 + model.reach].any()


@pytest.mark.parametrize("make", [make_transformer, make_depth_network])
def test_fewer_levels_need_no_others(make):
    model, codes = make(), torch.randint(0, SIZE, (2, LEVELS, 6))
    bits = model.bits(codes[:, :2])
    assert bits.shape == (2, 2, 6)
    with pytest.raises(ValueError, match=r"expected \[B, n, T\] with n in 1\.\.3"):
        model(torch.zeros(1, LEVELS + 1, 4, dtype=torch.long))


def test_bits_are_of_each_code():
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).expand(1, 2, 3, 3)
    codes = torch.tensor([[[0, 1, 2], [2, 0, 1]]])
    torch.testing.assert_close(
        code_bits(logits, codes), torch.tensor([[[1.0, 2.0, 2.0], [2.0, 1.0, 2.0]]])
    )


@pytest.mark.parametrize("make", [make_transformer, make_depth_network])
def test_a_saved_model_predicts_the_same(make, tmp_path):
    model, codes = make(), torch.randint(0, SIZE, (1, LEVELS, 6))
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).bits(codes).equal(model.bits(codes))
    assert "Entropy model" in (tmp_path / "README.md").read_text()


def test_tokens_of_another_codec_are_refused():
    codec, tokens = make_stft_codec(), make_tokens()
    with pytest.raises(ValueError, match="made-up"):
        CausalDepthNetwork.for_tokens(codec, tokens)


def test_a_model_refuses_other_codecs():
    spec = make_stft_codec().spec
    model = make_depth_network(codec=spec.as_dict())
    model.check_codec(spec)
    with pytest.raises(ValueError, match=r"made for codec 'tiny' .*, not for 'made-up'"):
        model.check_codec(make_tokens().provenance.spec)
