"""Speech with transcripts for a text model, and tokens whose conditioning is text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

from makers.training import COEFFICIENTS, LENGTHS, make_tokens
from tokgen.modelling.text.model import TextModel
from tokgen.modelling.text.symbols import Symbols
from tokgen.tokens.columns import TEXT_FRAMES, codes_of, conditioning_of
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.text import TranscribedSpeech
from tokgen.training.text_frames import with_text_frames

TEXTS = ["abc", "one, two", None, "three", "", "...", *["four five"] * 5]


def make_text_tokens() -> TokenDataset:
    """The made-up tokens with texts; some clips have none, or too few frames."""
    tokens = make_tokens()
    train = tokens.splits["train"]
    rows = [{**row, "text": text} for row, text in zip(train, TEXTS, strict=True)]
    return TokenDataset(
        DatasetDict(train=Dataset.from_list(rows, features=train.features)), tokens.provenance
    )


@pytest.fixture(scope="module")
def model() -> TextModel:
    names = Symbols.of_texts(["abcdefghijklmnopqrstuvwxyz"]).names
    return TextModel(symbols=names, n_features=COEFFICIENTS, dim=16).eval()


@pytest.fixture(scope="module")
def speech(model: TextModel) -> TranscribedSpeech:
    with pytest.warns(UserWarning, match="left out 6 of 11 clips: no transcript, longer than 58"):
        return TranscribedSpeech(make_text_tokens().splits["train"], model, 58)


def test_clips_that_cannot_be_aligned_are_left_out(speech, model) -> None:
    """Rows 1 and 10 are too long, 2, 4 and 5 say nothing, 7 has too few frames."""
    assert speech.rows.tolist() == [0, 3, 6, 8, 9]
    batch = speech.batch([0, 1])
    assert batch.lengths.tolist() == [LENGTHS[0], LENGTHS[3]]
    assert batch.symbols[1].tolist() == model.symbols.encode("three").tolist()
    assert batch.n_symbols.tolist() == [5, 7] and not batch.symbols[0, 5:].any()
    rows = make_text_tokens().splits["train"]
    whole = conditioning_of(rows.select([3]))[0]
    assert batch.conditioning[1, :, : LENGTHS[3]].T.equal(whole)
    with pytest.raises(ValueError, match="none of 1 clips has a text that fits"):
        TranscribedSpeech(rows.select([2]), model, 58)


def test_an_epoch_has_every_clip_once(speech) -> None:
    orders = [speech.order(0, epoch, 2) for epoch in range(4)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert np.array_equal(orders[1], speech.order(0, 1, 2))
    whole = speech.order(0, 0, 5)  # one batch: sorted
    assert speech.lengths[whole].tolist() == [5, 19, 33, 41, 55]


def test_frames_of_text_replace_the_conditioning(model) -> None:
    with pytest.warns(UserWarning, match="left out 4 of 11 clips"):
        found = with_text_frames(make_text_tokens(), model, progress=False)
    rows = found.splits["train"]
    assert list(rows["id"]) == [str(i) for i in (0, 1, 3, 6, 8, 9, 10)]
    assert found.provenance.conditioning is None
    assert TEXT_FRAMES in rows.column_names and "mfcc" not in rows.column_names
    frames, codes = conditioning_of(rows), codes_of(rows)
    assert frames is not None
    for each, code in zip(frames, codes, strict=True):
        assert each.shape == (code.shape[1], model.conditioning_dim)
    heard = conditioning_of(make_text_tokens().splits["train"].select([3]))[0]
    durations = model.align("three", heard)
    [wanted] = model.frames(["three"], [durations])
    torch.testing.assert_close(frames[2], wanted, atol=2e-3, rtol=2e-3)
