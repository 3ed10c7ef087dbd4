"""Hold out a test split of tokens, or of a corpus, that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from tokgen.corpus.listed import Corpus
from tokgen.tokens.dataset import TokenDataset
from tokgen.tokens.engines.job import split_name

__all__ = ["LEAST_ROWS", "SHARE", "corpus_with_test_split", "with_test_split"]

SHARE = 0.05  # of the rows, for each split that is made
LEAST_ROWS = 3  # one for each split


def with_test_split(tokens: TokenDataset) -> TokenDataset:
    """Return a dataset with a test split, made of a part of its only split if it has none.

    A dataset that has a test split is returned as it is. Otherwise the rows whose SHA-256 of the id
    is smallest become the test split, 5 % and at least one, and the next ones a validation split,
    unless there is one. The others are the train split. No audio or codes are copied.

    Raises:
        ValueError: no test split, and no train split or other single split to take it from, or one
            of fewer than three rows.
    """
    splits = tokens.splits
    if "test" in splits:
        return tokens
    ids = {name: [str(i) for i in rows["id"]] for name, rows in splits.items()}
    fix = "or a dataset with the splits train and test"
    source, parts = _hold_out(ids, "the tokens have", "rows", fix)
    found = {name: part for name, part in splits.items() if name != source}
    found |= {name: splits[source].select(places) for name, places in parts.items()}
    found = {name: found[name] for name in sorted(found, key=_place)}
    return replace(tokens, splits=type(splits)(found), made_test_split=True)


def corpus_with_test_split(corpus: Corpus) -> Corpus:
    """Return a corpus with a test split, made as `with_test_split` makes that of its tokens.

    Raises:
        ValueError: as there.
    """
    named = [(split_name(entry.split), entry.id) for entry in corpus.entries]
    ids = {split: [i for name, i in named if name == split] for split, _ in named}
    if "test" in ids:
        return corpus
    fix = "add a metadata.csv with the splits train and test, or set test_corpus"
    source, parts = _hold_out(ids, f"{corpus.name} has", "clips", fix)
    own = [entry for entry in corpus.entries if split_name(entry.split) == source]
    entries = [entry for entry in corpus.entries if split_name(entry.split) != source]
    for name, places in parts.items():
        entries += [replace(own[i], split=name) for i in places]
    return Corpus(corpus.name, entries, corpus.rejections, corpus.store, corpus.longest_seconds)


def _hold_out(
    ids: Mapping[str, Sequence[str]], subject: str, unit: str, fix: str
) -> tuple[str, dict[str, list[int]]]:
    """Choose what becomes a test split, and a validation split unless there is one.

    Args:
        ids: ids by split, none of which is "test".
        subject, unit, fix: for the errors: "few has", "clips" and what else helps.
    Returns:
        the split that they are taken from, and the places in it of each new split, in order.
    """
    names = [name for name in ids if name != "validation"]
    source = "train" if "train" in ids else names[0] if len(names) == 1 else None
    if source is None:
        raise ValueError(f"{subject} the splits {', '.join(ids)}: name one of them train")
    own = ids[source]
    if len(own) < LEAST_ROWS:
        raise ValueError(
            f"{subject} no test split, and only {len(own)} {unit} in {source!r}: give at least "
            f"{LEAST_ROWS}, {fix}"
        )
    hashes = [sha256(name.encode("utf-8", "replace")).digest() for name in own]
    order = sorted(range(len(own)), key=lambda i: (hashes[i], i))
    n = max(1, round(SHARE * len(own)))
    parts = {"test": order[:n]}
    if "validation" not in ids:
        parts["validation"] = order[n : 2 * n]
    held = {i for part in parts.values() for i in part}
    parts["train"] = [i for i in range(len(own)) if i not in held]
    return source, {name: sorted(part) for name, part in parts.items()}


def _place(name: str) -> tuple[int, str]:
    known = ("train", "validation", "test")
    return (known.index(name) if name in known else len(known), name)
