"""A corpus: folders of audio, Parquet files or datasets as one stream of utterances.

    corpus = open_corpus("recipes/data/allison", split="train")
    rejected: list[Rejection] = []
    for utterance in corpus.utterances(16000, rejected=rejected):
        utterance.waveform  # [1, N]

Opening lists light entries; audio is decoded one utterance at a time. What cannot be used is
reported by name and reason and never stops the stream.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from tokgen.audio import AudioError, display_name, read_audio, read_duration
from tokgen.corpus_sources import (
    AudioStore,
    Catalogue,
    Entry,
    Rejection,
    assign_split,
    holds_audio,
    list_folder,
)
from tokgen.corpus_tables import list_dataset, list_parquet

__all__ = ["Corpus", "Entry", "Rejection", "Utterance", "assign_split", "open_corpus"]

LONGEST_SECONDS = 3600.0  # a longer recording is refused: split it first
SILENCE_PEAK = 10 ** (-60 / 20)
_EDGE = 64 << 10  # bytes of a file's start and end that enter the fingerprint
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


@dataclass
class Utterance:
    """One utterance with its audio, waveform [1, N] float32 in [-1, 1]."""

    id: str
    waveform: Tensor
    sample_rate: int
    text: str | None
    speaker: str | None
    split: str | None


class Corpus:
    """Utterances in a stable order; `open_corpus` makes one.

    Attributes:
        name: the folder's, file's or dataset's.
        entries: unique by id.
        rejections: what listing left out. Selections keep them all: count them once.
        longest_seconds: `load` refuses longer audio, so that one file cannot fill the memory.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[Entry],
        rejections: Sequence[Rejection],
        store: AudioStore,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self.name, self.entries, self.rejections = name, list(entries), list(rejections)
        self.longest_seconds = longest_seconds
        self._store = store

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        splits = ", ".join(f"{n} {split}" for split, n in self.splits.items())
        return f"Corpus({self.name!r}: {splits or 'empty'}; {len(self.rejections)} rejected)"

    @property
    def splits(self) -> dict[str, int]:
        """Entries per split."""
        return dict(Counter(entry.split for entry in self.entries))

    def load(self, entry: Entry, sample_rate: int) -> Utterance:
        """Decode one utterance.

        Raises:
            AudioError: cannot be read (see `read_audio`), longer than `longest_seconds`, or
                silent (peak under -60 dBFS).
        """
        try:
            data, name = self._store.fetch(entry.key)
            waveform, rate = read_audio(
                data, sample_rate=sample_rate, name=name, max_seconds=self.longest_seconds
            )
        except AudioError as error:
            raise AudioError(entry.source, error.reason) from error
        peak = waveform.abs().max().item()
        if peak < SILENCE_PEAK:
            raise AudioError(entry.source, f"silence: its peak {peak:.2g} is under -60 dBFS")
        return Utterance(entry.id, waveform, rate, entry.text, entry.speaker, entry.split)

    def utterances(self, sample_rate: int, *, rejected: list[Rejection]) -> Iterator[Utterance]:
        """Every utterance that loads, in order.

        Args:
            sample_rate: Hz.
            rejected: gets those that do not; `rejections` from listing are not repeated.
        """
        for entry in self.entries:
            try:
                utterance = self.load(entry, sample_rate)
            except AudioError as error:
                rejected.append(Rejection(error.source, error.reason))
            else:
                yield utterance

    def select(
        self,
        split: str | None = None,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        n: int | None = None,
        ids: Sequence[str] | None = None,
    ) -> Corpus:
        """Part of the corpus, in the same order.

        Entries whose duration nobody tells are measured by their header; those that cannot
        be measured stay, so that loading reports them.

        Args:
            split: keep one split.
            min_seconds: keep entries at least as long.
            max_seconds: keep entries at most as long.
            n: keep the first n of what is left.
            ids: keep entries of these ids.
        Raises:
            ValueError: no such split, n under 1, or an id that is not there.
        """
        if n is not None and n < 1:
            raise ValueError(f"n = {n}: keep at least 1 entry, or None for all")
        entries = self.entries
        if split is not None and entries:
            if split not in self.splits:
                known = ", ".join(repr(name) for name in self.splits)
                raise ValueError(f"{self.name} has no split {split!r}; it has {known}")
            entries = [entry for entry in entries if entry.split == split]
        if ids is not None:
            wanted = set(ids)
            absent = sorted(wanted - {entry.id for entry in entries})
            if absent:
                raise ValueError(f"{self.name} has no {absent[:3]}, {len(absent)} ids in all")
            entries = [entry for entry in entries if entry.id in wanted]
        if min_seconds is not None or max_seconds is not None:
            low, high = min_seconds or 0.0, float("inf") if max_seconds is None else max_seconds
            entries = [self._measured(entry) for entry in entries]
            entries = [e for e in entries if e.seconds is None or low <= e.seconds <= high]
        return Corpus(self.name, entries[:n], self.rejections, self._store, self.longest_seconds)

    def _measured(self, entry: Entry) -> Entry:
        if entry.seconds is not None:
            return entry
        try:
            data, name = self._store.fetch(entry.key)
        except AudioError:
            return entry
        return replace(entry, seconds=read_duration(data, name=name))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the ids, texts, speakers, splits and audio, in order.

        Audio in tables counts byte for byte; a file counts by its size and its first and
        last 64 kB, so that a large folder is quick to check.
        """
        total = hashlib.sha256()
        for entry in self.entries:
            about = [entry.id, entry.text, entry.speaker, entry.split, self._digest(entry)]
            total.update(json.dumps(about).encode() + b"\n")
        return total.hexdigest()

    def _digest(self, entry: Entry) -> str:
        try:
            data, _ = self._store.fetch(entry.key)
            if isinstance(data, bytes):
                return hashlib.sha256(data).hexdigest()
            size = data.stat().st_size
            with data.open("rb") as file:
                digest = hashlib.sha256(f"{size}\n".encode() + file.read(_EDGE))
                file.seek(max(0, size - _EDGE))
                digest.update(file.read(_EDGE))
            return digest.hexdigest()
        except (AudioError, OSError):
            return "unreadable"


def open_corpus(
    where: str | Path,
    *,
    split: str | None = None,
    require_text: bool = False,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
) -> Corpus:
    """List a corpus.

    Args:
        where: a folder of audio (with `metadata.csv` or `metadata.jsonl`, or LJSpeech's
            `id|text|normalized`, if there is one), a `.parquet` file or a folder of them with
            a column `audio {bytes, path}`, a dataset that `save_to_disk` wrote, or the name of
            a hub dataset ("owner/name" or "owner/name:config").
        split: keep one split. Utterances without a split get one from `assign_split`.
        require_text: reject utterances without a transcript.
        min_seconds: leave out shorter ones.
        max_seconds: leave out longer ones.
    Raises:
        FileNotFoundError: neither here nor a hub dataset in reach.
        ValueError: holds no audio at all, no audio column, or no such split.
    """
    path = Path(where)
    catalogue = Catalogue(require_text=require_text)
    if path.is_dir():
        name = display_name(path.resolve().name)
        store = _open_folder(path, name, catalogue)
    elif path.is_file():
        if path.suffix.lower() != ".parquet":
            raise ValueError(f"{path} is a file but not .parquet; give a folder of audio instead")
        name = display_name(path.stem)
        store = list_parquet([path], path.parent, catalogue)
    else:
        name = str(where)
        store = _open_hub(name, catalogue)
    if not catalogue.entries and not catalogue.rejections:
        raise ValueError(f"{where} holds no utterances")
    corpus = Corpus(name, catalogue.entries, catalogue.rejections, store)
    return corpus.select(split, min_seconds, max_seconds)


def _open_folder(path: Path, name: str, catalogue: Catalogue) -> AudioStore:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        import datasets

        try:
            saved = datasets.load_from_disk(str(path))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path} is a saved dataset that cannot be opened: {error}") from error
        return list_dataset(_by_split(saved), name, [path], catalogue)
    if not holds_audio(path):
        found = path.rglob("*.parquet")
        tables = sorted(
            p for p in found if not set(".") & {q[0] for q in p.relative_to(path).parts}
        )
        if tables:
            return list_parquet(tables, path, catalogue)
        raise ValueError(f"{path} holds no audio files, no .parquet files and no saved dataset")
    return list_folder(path, catalogue)


def _open_hub(where: str, catalogue: Catalogue) -> AudioStore:
    if "/" not in where or not _HUB_ID.fullmatch(where) or where.startswith("."):
        raise FileNotFoundError(f"no folder or file {where} (a hub dataset is named owner/name)")
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    repository, _, config = where.partition(":")
    try:
        found = datasets.load_dataset(repository, config or None)
    except OSError as error:  # not found, and no connection
        raise FileNotFoundError(
            f"{where}: no such folder or file, and no hub dataset of that name in reach ({error})"
        ) from error
    roots = [Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE)]
    return list_dataset(_by_split(found), where, roots, catalogue)


def _by_split(found) -> dict:
    import datasets

    if isinstance(found, datasets.DatasetDict):
        return {str(split): data for split, data in found.items()}
    return {"" if found.split is None else str(found.split): found}
