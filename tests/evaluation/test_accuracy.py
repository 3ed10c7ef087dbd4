"""Tests of token accuracy on held-out utterances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from makers.codecs import make_variable
from makers.held_out import make_held_out, make_small_model
from tokgen.evaluation.accuracy import TIMES, token_accuracy
from tokgen.runs.store import ClipStore


@pytest.fixture(scope="module")
def tokens_and_held_out(tiny_corpus, tiny_codec, tmp_path_factory):
    return make_held_out(tiny_corpus, tiny_codec, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def held_out(tokens_and_held_out):
    return tokens_and_held_out[1]


@pytest.fixture(scope="module")
def model(tokens_and_held_out, tiny_codec):
    return make_small_model(tiny_codec, tokens_and_held_out[0])


class Oracle(torch.nn.Module):
    """Stands in for a model: predicts the right codes below level `known`, and 0 above."""

    def __init__(self, held_out, known: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.codes = {c.shape[-1]: c for c in held_out.codes}
        self.known, self.mask_id, self.seen = known, held_out.codec.spec.codebook_size, []

    def forward(self, tokens, conditioning, *, level):
        codes = self.codes[tokens.shape[-1]]
        self.seen.append((tokens, level))
        predicted = torch.stack(
            [codes[k] if k < self.known else 0 * codes[k] for k in level.tolist()]
        )
        return torch.nn.functional.one_hot(predicted, self.mask_id).float()


def test_accuracy_counts_hidden_codes_by_level(held_out) -> None:
    oracle = Oracle(held_out, known=2)
    hits, seen = token_accuracy(oracle, held_out)
    assert hits.shape == seen.shape == (2, 4)
    np.testing.assert_array_equal(hits[:, :2], seen[:, :2])
    zeros = np.stack([(c[2:] == 0).double().mean(-1).numpy() for c in held_out.codes])
    np.testing.assert_allclose(hits[:, 2:] / seen[:, 2:], zeros, atol=0.1)
    for tokens, level in oracle.seen:
        assert level.tolist() == [k for k in range(4) for _ in TIMES]
        for row, k in zip(tokens, level.tolist(), strict=True):
            assert (row[k + 1 :] == 60).all() and (row[:k] < 60).all()
    shares = [(t[0, 0] == 60).double().mean().item() for t, _ in oracle.seen]
    assert shares == pytest.approx([np.cos(np.pi * TIMES[0] / 2)] * 2, abs=0.02)
    again = token_accuracy(Oracle(held_out, known=2), held_out)
    np.testing.assert_array_equal(again[0], hits)


def test_accuracy_does_not_depend_on_the_other_utterances(held_out, model) -> None:
    both = token_accuracy(model, held_out)
    one = token_accuracy(model, held_out.part([1]))
    np.testing.assert_array_equal(both[0][1:], one[0])


def test_accuracy_resumes_from_the_store(held_out, model, tmp_path) -> None:
    whole = token_accuracy(model, held_out)
    store = ClipStore(tmp_path, "tokens", "plan")
    token_accuracy(model, held_out, store=store)
    sorted(store.folder.iterdir())[1].unlink()
    again = token_accuracy(model, held_out, store=store)
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_array_equal(token_accuracy(None, held_out, store=store), again)


def test_accuracy_counts_codes_up_to_the_depth(tiny_corpus, tmp_path) -> None:
    codec = make_variable(1.0)
    tokens, held_out = make_held_out(tiny_corpus, codec, tmp_path)
    model = make_small_model(codec, tokens)
    assert model.variable_depth
    hits, hidden = token_accuracy(model, held_out)
    shares = [np.cos(np.pi * t / 2) for t in TIMES]
    for row, depth in zip(hidden, held_out.depths, strict=True):
        live = [(depth > k).sum().item() for k in range(4)]
        assert len(set(live)) > 1
        expected = [sum(min(n, max(1, round(s * n))) for s in shares) for n in live]
        np.testing.assert_array_equal(row, expected)
    assert (hits <= hidden).all()
    for i, depth in enumerate(held_out.depths):  # what is past the depth changes nothing
        held_out.codes[i][torch.arange(4)[:, None] >= depth] = 7
    for before, after in zip((hits, hidden), token_accuracy(model, held_out), strict=True):
        np.testing.assert_array_equal(before, after)
