"""Entropy of runs of codes: equal to counting, on five clips."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch

from makers.speech import five_clips
from tokgen.metrics.codebook import entropy_bits, perplexity
from tokgen.metrics.ngrams import ngram_entropies, ngram_entropy


@pytest.fixture(scope="module")
def codes(tiny_codec):
    return [tiny_codec.encode(clip[None])[0] for clip, _ in five_clips()]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_five_clips_equal_counts_to_1e_9(codes, n):
    for level in range(4):
        runs = Counter(
            tuple(clip[level, i : i + n].tolist())
            for clip in codes
            for i in range(clip.shape[-1] - n + 1)
        )
        found = ngram_entropies(codes, 60)[level][n - 1]
        wanted = scipy.stats.entropy(list(runs.values()), base=2)
        assert found.bits == pytest.approx(wanted, abs=1e-9)
        assert (found.n_runs, found.n_different) == (sum(runs.values()), len(runs))
        bias = (len(runs) - 1) / (2 * found.n_runs * math.log(2))
        assert found.corrected == pytest.approx(min(wanted + bias, n * math.log2(60)))


def test_runs_of_one_are_the_entropy_and_the_perplexity(codes):
    bits = [level[0].bits for level in ngram_entropies(codes, 60)]
    np.testing.assert_allclose(bits, entropy_bits(codes, 60).numpy())
    np.testing.assert_allclose(2 ** np.array(bits), perplexity(codes, 60).numpy())


def test_a_sequence_that_repeats_tells_its_next_code():
    clip = torch.arange(1000) % 4
    one, two = (ngram_entropy([clip], n, 16).bits for n in (1, 2))
    assert one == pytest.approx(2) and two - one == pytest.approx(0, abs=1e-4)
    assert ngram_entropy([torch.zeros(9)], 2, 16).bits == 0


def test_clips_that_are_too_short_have_no_runs():
    none = ngram_entropy([torch.zeros(1), torch.zeros(0)], 2, 16)
    assert math.isnan(none.bits) and none.n_runs == 0
    with pytest.raises(ValueError, match="n = 0: must be at least 1"):
        ngram_entropy([torch.zeros(9)], 0, 16)
