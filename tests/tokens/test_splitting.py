"""A test split is made for datasets that have none."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import DatasetDict

from makers.audio import make_tone
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.tokens.splitting import corpus_with_test_split, with_test_split
from tokgen.tokens.tokenizing import tokenize_corpus


@pytest.fixture(scope="module")
def tokens(token_folder) -> TokenDataset:
    return load_tokens(token_folder)


def of(tokens: TokenDataset, **splits) -> TokenDataset:
    return load_tokens(DatasetDict(splits))


def test_a_dataset_with_a_test_split_stays_as_it_is(tokens) -> None:
    assert with_test_split(tokens) is tokens


@pytest.mark.parametrize("name", ["train", "all_"])
def test_one_split_becomes_three_by_the_hash_of_ids(tokens, name) -> None:
    rows = tokens.splits["train"]
    made = with_test_split(of(tokens, **{name: rows}))
    assert list(made.splits) == ["train", "validation", "test"]
    sizes = [len(part) for part in made.splits.values()]
    assert sizes == [len(rows) - 2, 1, 1]
    ids = [i for part in made.splits.values() for i in part["id"]]
    assert sorted(ids) == sorted(rows["id"])
    backwards = rows.select(range(len(rows) - 1, -1, -1))
    again = with_test_split(of(tokens, train=backwards))
    assert again.splits["test"]["id"] == made.splits["test"]["id"]
    assert made.splits["test"][0] in list(rows)
    assert made.provenance == tokens.provenance


def test_a_validation_split_is_kept(tokens) -> None:
    rows, validation = tokens.splits["train"], tokens.splits["validation"]
    made = with_test_split(of(tokens, train=rows, validation=validation))
    assert made.splits["validation"]["id"] == validation["id"]
    assert len(made.splits["train"]) == len(rows) - 1


@pytest.fixture
def few(tmp_path) -> Path:
    """A folder of four clips, which all hash into the train split."""
    for i in range(4):
        write_audio(tmp_path / "few" / f"clip {i}.wav", make_tone(0.6, i), 16000)
    assert open_corpus(tmp_path / "few").splits == {"train": 4}
    return tmp_path / "few"


def test_a_folder_is_split_as_its_tokens_are(few, tiny_codec, tmp_path) -> None:
    corpus = open_corpus(few)
    made = corpus_with_test_split(corpus)
    assert made.splits == {"train": 2, "validation": 1, "test": 1}
    tokenize_corpus(few, tiny_codec, tmp_path / "tokens", workers=1, progress=False)
    of_tokens = with_test_split(load_tokens(tmp_path / "tokens"))
    for name in made.splits:
        ids = [entry.id for entry in made.entries if entry.split == name]
        assert ids == list(of_tokens.splits[name]["id"])
    assert of_tokens.made_test_split
    assert corpus_with_test_split(made) is made
    with pytest.raises(ValueError, match=r"few has no test split, and only 2 clips in 'train': g"):
        corpus_with_test_split(open_corpus(few).select(n=2))


def test_too_little_to_split(tokens) -> None:
    rows = tokens.splits["train"]
    with pytest.raises(ValueError, match="and only 2 rows in 'train': give at least 3"):
        with_test_split(of(tokens, train=rows.select(range(2))))
    with pytest.raises(ValueError, match="the splits one, two: name one of them train"):
        with_test_split(of(tokens, one=rows, two=rows))
