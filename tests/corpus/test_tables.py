"""Saved Hugging Face datasets as corpora."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

from makers.corpora import run, table, tone
from tokgen.corpus.listed import open_corpus
from tokgen.corpus.splits import assign_split


@pytest.mark.parametrize("form", ["dict", "single"])
def test_saved_dataset(tmp_path, form):
    rows = table(tmp_path, 4, text=["a", "b", "c", "d"])
    plain = datasets.Dataset(rows).cast_column("audio", datasets.Audio(decode=True))
    folder = tmp_path / "saved"
    if form == "dict":
        parts = {"train": plain.select([0, 1, 2]), "test": plain.select([3])}
        datasets.DatasetDict(parts).save_to_disk(folder)
    else:
        plain.select([2, 0]).save_to_disk(folder)
    corpus = open_corpus(folder)
    utterances, rejected = run(corpus)
    assert rejected == []
    if form == "dict":
        assert corpus.splits == {"train": 3, "test": 1}
        assert [(u.id, u.text) for u in utterances] == [
            ("c0", "a"),
            ("c1", "b"),
            ("c2", "c"),
            ("c3", "d"),
        ]
        np.testing.assert_allclose(utterances[3].waveform[0], tone(hertz=350), atol=1e-4)
    else:
        assert [(u.id, u.split) for u in utterances] == [
            ("c2", assign_split("c2")),
            ("c0", assign_split("c0")),
        ]
        np.testing.assert_allclose(utterances[0].waveform[0], tone(hertz=300), atol=1e-4)


def test_broken_saved_dataset(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"dataset_info\.json: no such file"):
        open_corpus(tmp_path)
