"""Tables of code frequencies, against counts by hand."""

from __future__ import annotations

import numpy as np
import torch

from tokgen.modelling.code_tables import STRENGTHS, PreviousFrameTable, StaticTable

CLIPS = [torch.tensor([[0, 1, 0, 1], [2, 2, 2, 2]]), torch.tensor([[0, 1], [2, 0]])]


def test_the_static_table_has_the_frequencies():
    table = StaticTable(CLIPS, 3)
    np.testing.assert_allclose(table.shares[0], np.array([3.5, 3.5, 0.5]) / 7.5)
    np.testing.assert_allclose(table.shares.sum(-1), 1)
    codes = torch.tensor([[2, 0], [0, 2]])
    expected = -np.log2([[0.5 / 7.5, 3.5 / 7.5], [1.5 / 7.5, 5.5 / 7.5]])
    np.testing.assert_allclose(table.bits(codes), expected)


def test_the_previous_frame_table_counts_pairs_within_clips():
    table = PreviousFrameTable(CLIPS, 3, [])
    static, s = StaticTable(CLIPS, 3), STRENGTHS[-1]
    assert table.strengths.tolist() == [s, s]
    found = table.bits(torch.tensor([[0, 1, 2], [2, 2, 1]]))
    np.testing.assert_allclose(found[:, 0], static.bits(torch.tensor([[0], [2]]))[:, 0])
    # After code 0 there are three codes 1; after code 2 of level 1 three codes 2 and one 0.
    first = (3 + s * static.shares[0, 1]) / (3 + s)
    np.testing.assert_allclose(found[0, 1], -np.log2(first))
    np.testing.assert_allclose(found[1, 1], -np.log2((3 + s * static.shares[1, 2]) / (4 + s)))
    np.testing.assert_allclose(found[0, 2], -np.log2(s * static.shares[0, 2] / (1 + s)))
    shares = [2.0 ** -table.bits(torch.tensor([[0, code], [2, 0]]))[0, 1] for code in range(3)]
    np.testing.assert_allclose(sum(shares), 1)


def test_held_out_clips_choose_the_strength_of_each_level():
    draw = np.random.default_rng(0)
    steady = np.repeat(np.arange(8), 50)  # follows itself
    noise = draw.integers(0, 8, len(steady))
    clip = torch.from_numpy(np.stack([steady, noise]))
    table = PreviousFrameTable([clip], 8, [torch.from_numpy(np.stack([steady, noise[::-1]]))])
    assert table.strengths[0] == STRENGTHS[0] and table.strengths[1] > STRENGTHS[0]
    assert table.bits(clip)[0].mean() < 0.5
