"""Hold out a test split of token datasets that have none."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from tokgen.tokens.dataset import TokenDataset

__all__ = ["LEAST_ROWS", "SHARE", "with_test_split"]

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
    names = [name for name in splits if name != "validation"]
    source = "train" if "train" in splits else names[0] if len(names) == 1 else None
    if source is None:
        raise ValueError(f"the tokens have the splits {', '.join(splits)}: name one of them train")
    rows = splits[source]
    if len(rows) < LEAST_ROWS:
        raise ValueError(
            f"the tokens have no test split, and only {len(rows)} rows in {source!r}: give at "
            f"least {LEAST_ROWS}, or a dataset with the splits train and test"
        )
    hashes = [sha256(str(name).encode("utf-8", "replace")).digest() for name in rows["id"]]
    order = sorted(range(len(rows)), key=lambda i: (hashes[i], i))
    n = max(1, round(SHARE * len(rows)))
    parts = {"test": order[:n]}
    if "validation" not in splits:
        parts["validation"] = order[n : 2 * n]
    held = {i for part in parts.values() for i in part}
    parts["train"] = [i for i in range(len(rows)) if i not in held]
    found = {name: part for name, part in splits.items() if name != source}
    found |= {name: rows.select(sorted(part)) for name, part in parts.items()}
    return replace(tokens, splits=type(splits)({n: found[n] for n in sorted(found, key=_place)}))


def _place(name: str) -> tuple[int, str]:
    known = ("train", "validation", "test")
    return (known.index(name) if name in known else len(known), name)
