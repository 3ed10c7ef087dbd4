"""Fréchet audio distance: equal to the usual formula, and embeddings by name."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from makers.audio import make_tone
from makers.speech import five_clips
from makers.speech_models import save_clap, save_wavlm
from tokgen.metrics.frechet import embed_clips, frechet_distance, make_embedder


def by_the_formula(x, y):
    """|m - n|^2 + tr(S + T - 2 (S T)^(1/2)), as frechet-audio-distance computes it."""
    x, y = x.numpy(), y.numpy()
    shift = x.mean(0) - y.mean(0)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm((s @ t).astype(complex))
    return float(shift @ shift + np.trace(s) + np.trace(t) - 2 * np.trace(root).real)


def test_five_clips_equal_the_formula_to_1e_4():
    embedder = make_embedder("resemblyzer")
    clean, noisy = (torch.cat(embed_clips(embedder, side, 16000))
                    for side in zip(*five_clips(), strict=True))  # fmt: skip
    assert clean.shape[1] == 256 and len(clean) > 20
    found = frechet_distance(clean, noisy).value
    assert found == pytest.approx(by_the_formula(clean, noisy), abs=1e-4) and found > 0.1


@pytest.mark.parametrize("sizes", [(200, 90), (5, 4), (12, 300)])
def test_any_number_of_embeddings(sizes):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 12, generator=generator, dtype=torch.float64) for n in sizes)
    found = frechet_distance(x, 2 * y + 1).value
    assert found == pytest.approx(by_the_formula(x, 2 * y + 1), rel=1e-4)
    assert frechet_distance(x, x).value == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_measured_has_a_reason():
    one = torch.zeros(1, 4)
    assert frechet_distance(one, torch.zeros(9, 4)).reason == "fewer than two embeddings"
    clips = [torch.zeros(1, 9000), torch.zeros(1, 0), make_tone(1.0, 0)]
    found = embed_clips(make_embedder("resemblyzer"), clips, 16000)
    assert found[:2] == ["silent", "no samples"] and found[2].shape == (1, 256)
    with pytest.raises(ValueError, match="known are clap, wavlm, resemblyzer"):
        make_embedder("vggish")


def test_embeddings_of_transformers(tmp_path):
    save_wavlm(tmp_path / "wavlm", "WavLMModel")
    save_clap(tmp_path / "clap")
    for kind, width in (("wavlm", 16), ("clap", 24)):
        embedder = make_embedder(f"{kind}:{tmp_path / kind}")
        assert str(tmp_path / kind) in embedder.backend
        [short, long] = embed_clips(embedder, [make_tone(0.5, 0), make_tone(21.0, 1)], 16000)
        assert short.shape[1] == long.shape[1] == width and len(long) > len(short)
        assert len(long) == (3 if kind == "clap" else len(long))  # pieces of 10 s every 5 s
        [again] = embed_clips(embedder, [make_tone(0.5, 0)], 16000)
        assert torch.equal(again, short)
    (tmp_path / "clap/model.safetensors").rename(tmp_path / "clap/pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        make_embedder(f"clap:{tmp_path / 'clap'}")
