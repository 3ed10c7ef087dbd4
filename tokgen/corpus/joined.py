"""Several corpora as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tokgen.corpus.entries import AudioStore, Entry

__all__ = ["JoinedStore", "join"]


class JoinedStore(AudioStore):
    """Fetches audio from several stores.

    Args:
        places: store and key there of each entry.
    """

    def __init__(self, stores: Sequence[AudioStore], places: Sequence[tuple[int, int]]) -> None:
        self.stores, self.places = list(stores), list(places)
        self.is_local = all(store.is_local for store in stores)

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        store, inner = self.places[key]
        return self.stores[store].fetch(inner)

    @contextmanager
    def borrow(self, key: int) -> Iterator[tuple[Path | bytes, str]]:
        store, inner = self.places[key]
        with self.stores[store].borrow(inner) as found:
            yield found

    def stamp(self, key: int) -> str | None:
        store, inner = self.places[key]
        return self.stores[store].stamp(inner)

    def digest(self, key: int) -> str:
        store, inner = self.places[key]
        return self.stores[store].digest(inner)


def join(
    names: Sequence[str], parts: Sequence[Sequence[Entry]], stores: Sequence[AudioStore]
) -> tuple[list[Entry], JoinedStore]:
    """Join the entries of several corpora, one after the other.

    If an earlier corpus has the same id, the id gets the name of its corpus as a prefix
    ("ru/hello"), and a number if that is taken too ("ru-2/hello").
    """
    entries: list[Entry] = []
    places: list[tuple[int, int]] = []
    taken: set[str] = set()
    for i, (name, part) in enumerate(zip(names, parts, strict=True)):
        for entry in part:
            id, number = entry.id, 1
            while id in taken:
                id = f"{name}/{entry.id}" if number == 1 else f"{name}-{number}/{entry.id}"
                number += 1
            taken.add(id)
            entries.append(replace(entry, id=id, key=len(places)))
            places.append((i, entry.key))
    return entries, JoinedStore(stores, places)
