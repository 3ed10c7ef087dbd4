"""Listed corpora: the utterances of a folder, of Parquet files or of a dataset, in order.

    corpus = open_corpus("recipes/data/allison", split="train")
    rejected: list[Rejection] = []
    for utterance in corpus.utterances(16000, rejected=rejected):
        utterance.waveform  # [1, N]

Opening a corpus lists entries without audio. Audio is decoded one utterance at a time. Unusable
files are reported by name and reason, and never stop a run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

from tokgen.corpus.entries import AudioStore, Catalogue, Entry, Rejection
from tokgen.corpus.folders import find_files, list_files, tables_of
from tokgen.corpus.hub import list_hub, stream_hub
from tokgen.corpus.joined import join
from tokgen.corpus.layouts import find_layout
from tokgen.corpus.published import adjust_rows, list_published
from tokgen.corpus.reading import LONGEST_SECONDS, Readable, Unit, within
from tokgen.corpus.settings import check_lengths, parse_where, split_sources
from tokgen.corpus.splits import split_kind
from tokgen.corpus.streams import StreamCorpus, stream_parquet
from tokgen.runs.progress import progress_bar
from tokgen.storage import local_path

__all__ = ["Corpus", "as_corpus", "open_corpus"]


class Corpus(Readable):
    """Utterances in a stable order, made by `open_corpus`.

    Attributes:
        entries: utterances without audio, with unique ids.
        store: fetches their audio.
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
        self.store = store

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def n_entries(self) -> int:
        return len(self.entries)

    @property
    def is_local(self) -> bool:
        return self.store.is_local

    def __repr__(self) -> str:
        splits = ", ".join(f"{n} {split}" for split, n in self.splits.items())
        return f"Corpus({self.name!r}: {splits or 'empty'}; {len(self.rejections)} rejected)"

    @property
    def splits(self) -> dict[str, int]:
        """Number of entries by split."""
        return dict(Counter(entry.split for entry in self.entries))

    def units(self, rows: int = 64, seconds: float = 600.0) -> list[Unit]:
        if rows < 1 or not seconds > 0:
            raise ValueError(
                f"rows = {rows}, seconds = {seconds}: rows must be at least 1, seconds above 0"
            )
        units: list[Unit] = []
        start, known = 0, 0.0
        for stop, entry in enumerate(self.entries, 1):
            known += entry.seconds or 0.0
            if stop - start >= rows or known >= seconds or stop == len(self):
                units.append(Unit(len(units), start, stop))
                start, known = stop, 0.0
        return units

    def read_unit(self, unit: Unit) -> Iterator[Entry]:
        yield from self.entries[unit.start : unit.stop]

    def _borrow(self, entry: Entry) -> AbstractContextManager[tuple[Path | bytes, str]]:
        return self.store.borrow(entry.key)

    def select(
        self,
        split: str | None = None,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        n: int | None = None,
        ids: Sequence[str] | None = None,
        where: str | None = None,
    ) -> Corpus:
        """Select a part of the corpus, in the same order.

        For duration limits, unknown durations are measured from the audio's header. Behind a URL
        this fetches all files, so a duration column saves time. Entries that cannot be measured
        are kept, so that loading reports them.

        Args:
            split: keep one split. If the corpus has none of that name, parts of that kind count as
                it; see `with_plain_splits`.
            min_seconds, max_seconds: keep entries whose duration is in this closed range.
            n: keep the first n entries after all other selections.
            ids: keep entries with these ids.
            where: keep entries of one language or speaker ("language=en") or of several
                ("speaker=ann,ben").
        Raises:
            ValueError: there is no such split, id, language or speaker, or n is under 1.
        """
        if n is not None and n < 1:
            raise ValueError(f"n = {n}: must be at least 1, or None to keep all")
        entries = self.entries
        if split is not None and entries:
            chosen = self if split in self.splits else self.with_plain_splits()
            entries = [entry for entry in chosen.entries if entry.split == split]
            if not entries:
                known = ", ".join(repr(name) for name in self.splits)
                raise ValueError(f"{self.name} has no split {split!r}; it has {known}")
        if where is not None and entries:
            entries = self._where(entries, *parse_where(where))
        if ids is not None:
            wanted = set(ids)
            absent = sorted(wanted - {entry.id for entry in entries})
            if absent:
                raise ValueError(
                    f"{self.name} lacks {len(absent)} of the ids, such as {absent[:3]}"
                )
            entries = [entry for entry in entries if entry.id in wanted]
        if min_seconds is not None or max_seconds is not None:
            bar = progress_bar(f"durations of {self.name}", entries, unit="file", delay=2)
            entries = [replace(entry, seconds=self._measure(entry)) for entry in bar]
            entries = [e for e in entries if within(e.seconds, min_seconds, max_seconds)]
        return Corpus(self.name, entries[:n], self.rejections, self.store, self.longest_seconds)

    def with_plain_splits(self) -> Corpus:
        """Name parts such as "train-clean-100" and "dev.other" "train", "validation" or "test".

        A part keeps its name if the corpus has a split of the plain name.
        """
        kinds = {name: split_kind(name) or name for name in self.splits}
        plain = {name: name if kind in self.splits else kind for name, kind in kinds.items()}
        entries = [replace(entry, split=plain[entry.split]) for entry in self.entries]
        return Corpus(self.name, entries, self.rejections, self.store, self.longest_seconds)

    def _where(self, entries: list[Entry], field: str, values: Sequence[str]) -> list[Entry]:
        chosen = [entry for entry in entries if entry.fits(field, values)]
        if not chosen:
            found = sorted({str(getattr(entry, field)) for entry in entries})
            known = ", ".join(found[:10]) + (" ..." if len(found) > 10 else "")
            raise ValueError(f"{self.name} has no {field} {','.join(values)}; it has {known}")
        return chosen

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the ids, texts, speakers, splits and audio of all entries, in order.

        For a local file, size and the first and last 64 kB are hashed, so that large folders are
        checked quickly. For local tables, all bytes are hashed. For a remote file, its size and
        the store's checksum (ETag, MD5 ...) or time of last change are hashed, and for a row of
        a remote table also its number. A remote file is only downloaded if its store reports
        neither.
        """
        return self._hashes[0]

    @property
    def digests(self) -> Iterator[tuple[str, str]]:
        """The id of each entry, and 16 letters (hex) of its part in the fingerprint."""
        for i, entry in enumerate(self.entries):
            yield entry.id, self._hashes[1][8 * i : 8 * i + 8].hex()

    @cached_property
    def _hashes(self) -> tuple[str, bytes]:
        total, each = hashlib.sha256(), bytearray()
        for entry in self.entries:
            about = [entry.id, entry.text, entry.speaker, entry.split, self.store.digest(entry.key)]
            line = json.dumps(about).encode() + b"\n"
            total.update(line)
            each += hashlib.sha256(line).digest()[:8]
        return total.hexdigest(), bytes(each)


@overload
def open_corpus(
    source: str | Path | Sequence[str | Path],
    *,
    streaming: Literal[False] = False,
    split: str | None = None,
    where: str | None = None,
    require_text: bool = False,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    language: str | None = None,
    follow_links: bool = False,
) -> Corpus: ...
@overload
def open_corpus(
    source: str | Path | Sequence[str | Path],
    *,
    streaming: bool,
    split: str | None = None,
    where: str | None = None,
    require_text: bool = False,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    language: str | None = None,
    follow_links: bool = False,
) -> Corpus | StreamCorpus: ...
def open_corpus(
    source: str | Path | Sequence[str | Path],
    *,
    streaming: bool = False,
    split: str | None = None,
    where: str | None = None,
    require_text: bool = False,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    language: str | None = None,
    follow_links: bool = False,
) -> Corpus | StreamCorpus:
    """List a corpus, or open it as a stream.

    Args:
        source: one of the following. All but the last may also be a URL that fsspec knows (s3://,
            gs://, hf://, memory:// ...; over https:// only a `.parquet` file).
            - a folder of audio, optionally with `metadata.csv` or `metadata.jsonl` (LJSpeech's
              `id|text|normalized` too);
            - a `.parquet` file or a folder of them, with a column `audio {bytes, path}`;
            - a dataset that `save_to_disk` wrote;
            - a hub dataset, "owner/name" or "owner/name:config".
            The name of a published layout may stand before it ("vctk:/data/VCTK-Corpus-0.92",
            "libritts:owner/name"; see `tokgen.corpus.layouts.LAYOUTS`). Several corpora, as a list
            or with commas, are joined in that order; see `tokgen.corpus.joined.join` for ids.
        streaming: read a hub dataset or Parquet files without a download and without listing.
        split: keep one split, as in `Corpus.select`. Utterances without a split get one from
            `assign_split`.
        where: keep utterances of one language or speaker, as in `Corpus.select`.
        require_text: reject utterances without a transcript.
        min_seconds, max_seconds: keep utterances whose duration is in this closed range.
        language: of the speech ("en", "en-US", "English"), for utterances whose corpus does not
            state it in a column `language`, `lang` or `locale`.
        follow_links: read files that links, metadata or a saved dataset name outside the folder.
            By default they become rejections; a saved dataset is refused.
    Raises:
        FileNotFoundError: there is no such folder or file, and no such hub dataset in reach.
        ValueError: the source has no audio, no audio column or no such split, leads out of its
            folder, or the protocol is unknown.
        ModuleNotFoundError: the protocol's driver is not installed.
        StoreError: the store does not answer.
    """
    check_lengths(min_seconds, max_seconds)
    sources = split_sources(source)
    if len(sources) != 1:
        if streaming or not sources:
            raise ValueError(f"{source}: open at least one corpus, and only one as a stream")
        options: dict[str, Any] = {
            **{"split": split, "min_seconds": min_seconds, "max_seconds": max_seconds},
            **{"require_text": require_text, "language": language, "follow_links": follow_links},
        }
        opened = [open_corpus(each, **options) for each in sources]
        names = [corpus.name for corpus in opened]
        entries, joined = join(names, [c.entries for c in opened], [c.store for c in opened])
        rejections = [rejection for corpus in opened for rejection in corpus.rejections]
        return Corpus("+".join(names), entries, rejections, joined).select(where=where)
    layout, source = find_layout(sources[0]) if isinstance(sources[0], str) else (None, sources[0])
    source = local_path(source) or source
    found = find_files(source, follow_links=follow_links)
    if streaming:
        if layout is not None:
            raise ValueError(f"{sources[0]}: leave out the layout's name to open a stream")
        if found is None:
            stream = stream_hub(str(source), require_text=require_text)
        elif tables := tables_of(found.files):
            stream = stream_parquet(tables, found.name, require_text=require_text)
            stream.rejections += found.left_out
        else:
            raise ValueError(
                f"{source} holds no .parquet files: open it without streaming{found.note()}"
            )
        stream = stream.select(split, min_seconds, max_seconds, where)
        return replace(stream, language=language)
    stated = layout.language if layout else None
    catalogue = Catalogue(require_text=require_text, language=stated or language)
    if found is None:
        name = str(source)
        store = list_hub(name, catalogue)
        if layout is not None:
            adjust_rows(layout, catalogue)
    else:
        name = found.name
        catalogue.rejections += found.left_out
        if layout is not None:
            store = list_published(layout, source, found, catalogue, follow_links=follow_links)
        else:
            store = list_files(source, found, catalogue, follow_links=follow_links)
    if not catalogue.entries and not catalogue.rejections:
        raise ValueError(f"{source} holds no utterances")
    corpus = Corpus(name, catalogue.entries, catalogue.rejections, store)
    return corpus.select(split, min_seconds, max_seconds, where=where)


def as_corpus(
    corpus: str | Path | Sequence[str | Path] | Corpus,
    *,
    split: str | None = None,
    where: str | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    language: str | None = None,
    follow_links: bool = False,
) -> Corpus:
    """Return a corpus that is given as an object or as a source of `open_corpus`.

    Args:
        split, where, min_seconds, max_seconds: part of the corpus to keep, as in `open_corpus`.
        language: as in `open_corpus`.
        follow_links: as in `open_corpus`; for a corpus that is given by its source.
    """
    if corpus is None:
        raise TypeError("corpus is None: give a folder, file, hub id or Corpus")
    if not isinstance(corpus, Corpus):
        return open_corpus(
            corpus,
            split=split,
            where=where,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            language=language,
            follow_links=follow_links,
        )
    if follow_links:
        raise ValueError(f"follow_links: give it to open_corpus when you open {corpus.name}")
    chosen = corpus.select(split, min_seconds, max_seconds, where=where)
    if language is not None:
        chosen.entries = [replace(e, language=e.language or language) for e in chosen.entries]
    return chosen
