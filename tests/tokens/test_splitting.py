"""A test split is made for datasets that have none."""

from __future__ import annotations

import pytest
from datasets import DatasetDict

from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.tokens.splitting import with_test_split


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


def test_too_little_to_split(tokens) -> None:
    rows = tokens.splits["train"]
    with pytest.raises(ValueError, match="and only 2 rows in 'train': give at least 3"):
        with_test_split(of(tokens, train=rows.select(range(2))))
    with pytest.raises(ValueError, match="the splits one, two: name one of them train"):
        with_test_split(of(tokens, one=rows, two=rows))
