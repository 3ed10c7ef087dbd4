"""Local search: its codebooks, its sweeps and its settings."""

import faiss
import pytest
import torch

from tokgen.quantizers.offline import additive
from tokgen.quantizers.offline.additive import LocalSearchQuantizer, ResidualKMeans, kmeans

FRAMES = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)) + 1


def squared_errors(quantizer, beam=None):
    return (quantizer.decode(quantizer.encode(FRAMES, beam=beam)) - FRAMES).square().sum(1)


@pytest.mark.parametrize("beam", [None, 4])
def test_sweeps_lower_the_error_of_every_frame(beam, monkeypatch):
    quantizer = LocalSearchQuantizer(dim=6, n_codebooks=3, codebook_size=16, n_rounds=2)
    quantizer.fit(FRAMES, progress=False)
    swept = squared_errors(quantizer, beam)
    monkeypatch.setattr(additive, "_SWEEPS", 0)
    plain = squared_errors(quantizer, beam)
    assert float(swept.sum()) < float(plain.sum())
    if beam is None:
        assert bool((swept <= plain + 1e-4).all())


def test_a_codebook_of_wide_spread_comes_first():
    quantizer = LocalSearchQuantizer(dim=6, n_codebooks=3, codebook_size=16, n_rounds=2)
    quantizer.fit(FRAMES, progress=False)
    spread = quantizer.codebooks.var(1).sum(1)
    assert spread.tolist() == sorted(spread.tolist(), reverse=True)


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"codebook_size = 20: .*power of two, such as 16 or 32"):
        LocalSearchQuantizer(dim=6, codebook_size=20)
    with pytest.raises(ValueError, match="n_rounds = 0"):
        LocalSearchQuantizer(dim=6, codebook_size=16, n_rounds=0)


def test_faiss_keeps_its_threads():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        two = kmeans(FRAMES, 20, seed=3)
        assert faiss.omp_get_max_threads() == 2
        faiss.omp_set_num_threads(1)
        assert torch.equal(kmeans(FRAMES, 20, seed=3), two)
    finally:
        faiss.omp_set_num_threads(before)


def test_a_level_codes_what_is_left():
    quantizer = ResidualKMeans(dim=6, n_codebooks=2, codebook_size=20)
    quantizer.fit(FRAMES, progress=False)
    first = quantizer.decode(quantizer.encode(FRAMES, 1))
    assert torch.equal(quantizer.codebooks[1], kmeans(FRAMES - first, 20, seed=1))


def test_fitting_compares_few_frames_at_a_time(monkeypatch):
    whole = ResidualKMeans(dim=6, n_codebooks=2, codebook_size=20)
    whole.fit(FRAMES, progress=False)
    compared, distances = [], additive.Level.distances

    def counted(level, residual, distance):
        compared.append(len(residual))
        return distances(level, residual, distance)

    monkeypatch.setattr(additive, "CHUNK", 150)
    monkeypatch.setattr(additive.Level, "distances", counted)
    parts = ResidualKMeans(dim=6, n_codebooks=2, codebook_size=20)
    before = FRAMES.clone()
    parts.fit(FRAMES, progress=False)
    assert compared == 2 * [150, 150, 100]
    assert torch.equal(parts.codebooks, whole.codebooks) and torch.equal(FRAMES, before)
