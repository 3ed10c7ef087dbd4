"""Checks of an output that exists: its kind, and its differences from a new run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tokgen.corpus.listed import Corpus
from tokgen.corpus.reading import Readable
from tokgen.storage import Storage
from tokgen.tokens.provenance import CORPUS_CHANGED, PROVENANCE, Provenance
from tokgen.tokens.saved import CORPUS, PLAN

__all__ = ["NO_TOKENS", "check_same", "explain", "is_there", "read_corpus", "write_corpus"]

NO_TOKENS = "exists and is not a token dataset: choose another folder"


def is_there(storage: Storage) -> bool:
    """Return whether a place holds something other than unfinished work."""
    if storage.path is None:
        return storage.exists(PROVENANCE) or (not storage.exists(PLAN) and storage.exists())
    path = storage.path
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def check_same(storage: Storage, provenance: Provenance, corpus: Readable) -> Provenance:
    """Return the provenance of a finished dataset.

    Raises:
        ValueError: it is no token dataset, or not the one that this run would make. The message
            names what differs.
    """
    if not storage.exists(PROVENANCE):
        raise ValueError(f"{storage.url} {NO_TOKENS}")
    theirs = Provenance.from_json(storage.read(PROVENANCE), storage.url)
    if changed := theirs.differences(provenance):
        changed = explain(changed, read_corpus(storage), corpus)
        raise ValueError(
            f"{storage.url} holds {theirs.content} of codec {theirs.codec['name']!r} and corpus "
            f"{theirs.corpus!r}. Since then, these changed (old → new): {'; '.join(changed)}. "
            "Choose another folder, or delete this one to tokenize again"
        )
    return theirs


def write_corpus(storage: Storage, corpus: Readable) -> None:
    """Write the ids and digests of a listed corpus, so that a later run can name what changed."""
    if isinstance(corpus, Corpus):
        lines = (json.dumps({"id": id, "digest": digest}) for id, digest in corpus.digests)
        text = "".join(f"{line}\n" for line in lines).encode()
        if not storage.exists(CORPUS) or storage.read(CORPUS) != text:
            storage.write(CORPUS, text)


def read_corpus(storage: Storage) -> dict[str, str]:
    """Return the digests that `write_corpus` wrote, by id; empty if they are not there."""
    return dict(_pairs(storage.read(CORPUS))) if storage.exists(CORPUS) else {}


def explain(changed: Sequence[str], before: dict[str, str], corpus: Readable) -> list[str]:
    """Name the files that differ, if the corpus is among what changed.

    Args:
        changed: from `Provenance.differences`.
        before: digests of the corpus of the earlier run.
        corpus: of this run.
    """
    if CORPUS_CHANGED not in changed or not before or not isinstance(corpus, Corpus):
        return list(changed)
    now = dict(corpus.digests)
    groups = {
        "new": [id for id in now if id not in before],
        "gone": [id for id in before if id not in now],
        "with other audio or texts": [id for id in now if before.get(id, now[id]) != now[id]],
    }
    counts = [f"{len(ids)} {what} (first {ids[0]!r})" for what, ids in groups.items() if ids]
    found = f"utterances of the corpus: {', '.join(counts) or 'in another order'}"
    return [found if text == CORPUS_CHANGED else text for text in changed]


def _pairs(text: bytes) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        try:
            fields: Any = json.loads(line)
            yield str(fields["id"]), str(fields["digest"])
        except (ValueError, TypeError, KeyError, RecursionError):  # damaged
            continue
