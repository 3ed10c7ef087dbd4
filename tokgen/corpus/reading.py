"""Reading the utterances of a corpus, one by one, unit by unit, or block by block.

    for unit in corpus.units():
        for entry in corpus.read_unit(unit):
            utterance = corpus.load(entry, 16000)

A unit is what one worker does at a time. Units depend on the corpus only, so any number of
workers, on any machines, cut it alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tokgen.audio.files import AudioBlocks, AudioError, open_blocks, read_audio
from tokgen.corpus.entries import Entry, Rejection

LONGEST_SECONDS = 3600.0  # `load` holds the waveform: an hour at 16 kHz is 230 MB
LONGEST_STREAM_SECONDS = 24 * 3600.0  # `open` holds one block
SILENCE_PEAK = 10 ** (-60 / 20)


@dataclass(frozen=True)
class Unit:
    """A stretch of a corpus.

    Attributes:
        index: position among the corpus' units.
        start, stop: its entries, `entries[start:stop]`; of a stream, its shards.
    """

    index: int
    start: int
    stop: int


@dataclass
class Utterance:
    """One utterance with its audio, waveform [1, N] float32 in [-1, 1]."""

    id: str
    waveform: Tensor
    sample_rate: int
    text: str | None
    speaker: str | None
    split: str | None


class Readable(ABC):
    """What can be read by units: a listed `Corpus`, or a `StreamCorpus`. Picklable.

    Attributes:
        name: the folder's, file's or dataset's.
        rejections: what listing left out. Selections keep them all: count them once.
        longest_seconds: `load` refuses longer audio, so that one file cannot fill the memory.
    """

    name: str
    rejections: list[Rejection]
    longest_seconds: float

    @property
    @abstractmethod
    def n_entries(self) -> int | None:
        """Entries in all; None where nobody knows before reading."""

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether all audio is on this machine, so that forked processes may read it."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the corpus holds."""

    @abstractmethod
    def units(self, rows: int = 64, seconds: float = 600.0) -> list[Unit]:
        """The corpus, cut into units."""

    @abstractmethod
    def read_unit(self, unit: Unit) -> Iterator[Entry]:
        """Its entries, in order."""

    @abstractmethod
    def _borrow(self, entry: Entry) -> AbstractContextManager[tuple[Path | bytes, str]]:
        """The entry's file, or its bytes, and a name whose suffix tells the format."""

    def load(self, entry: Entry, sample_rate: int) -> Utterance:
        """Decode one utterance.

        Raises:
            AudioError: cannot be read (see `read_audio`), longer than `longest_seconds`, or
                silent (peak under -60 dBFS).
        """
        try:
            with self._borrow(entry) as (data, name):
                waveform, rate = read_audio(
                    data, sample_rate=sample_rate, name=name, max_seconds=self.longest_seconds
                )
        except AudioError as error:
            raise AudioError(entry.source, error.reason) from error
        check_loud(entry, waveform.abs().max().item())
        return Utterance(entry.id, waveform, rate, entry.text, entry.speaker, entry.split)

    @contextmanager
    def open(
        self, entry: Entry, sample_rate: int, longest_seconds: float = LONGEST_STREAM_SECONDS
    ) -> Iterator[AudioBlocks]:
        """Decode one utterance block by block: for recordings of hours.

        Args:
            entry: of this corpus.
            sample_rate: Hz.
            longest_seconds: refuse anything longer.
        Yields:
            the blocks: together the samples that `load` gives. Silence is for the caller to
            refuse, with `check_loud`.
        Raises:
            AudioError: cannot be read (see `open_blocks`), here or while the blocks are read.
        """
        label = None
        try:
            with (
                self._borrow(entry) as (data, label),
                open_blocks(
                    data, sample_rate=sample_rate, name=label, max_seconds=longest_seconds
                ) as blocks,
            ):
                yield blocks
        except AudioError as error:
            if error.source == label or label is None:
                raise AudioError(entry.source, error.reason) from error
            raise

    def utterances(self, sample_rate: int, *, rejected: list[Rejection]) -> Iterator[Utterance]:
        """Every utterance that loads, in order.

        Args:
            sample_rate: Hz.
            rejected: gets those that do not; `rejections` from listing are not repeated.
        """
        for unit in self.units():
            for entry in self.read_unit(unit):
                try:
                    utterance = self.load(entry, sample_rate)
                except AudioError as error:
                    rejected.append(Rejection(error.source, error.reason))
                else:
                    yield utterance


def check_loud(entry: Entry, peak: float) -> None:
    """
    Raises:
        AudioError: the largest sample of an utterance is under -60 dBFS.
    """
    if peak < SILENCE_PEAK:
        raise AudioError(entry.source, f"silence: its peak {peak:.2g} is under -60 dBFS")


def within(seconds: float, low: float | None, high: float | None) -> bool:
    return (low is None or seconds >= low) and (high is None or seconds <= high)


def cut_units(entries: Sequence[Entry], rows: int, seconds: float) -> list[Unit]:
    """Cut after `rows` entries, or after the entry with which the known duration reaches `seconds`.

    Raises:
        ValueError: rows under 1, or seconds not above 0.
    """
    if rows < 1 or not seconds > 0:
        raise ValueError(f"rows = {rows}, seconds = {seconds}: at least 1 and above 0")
    units: list[Unit] = []
    start, known = 0, 0.0
    for stop, entry in enumerate(entries, 1):
        known += entry.seconds or 0.0
        if stop - start >= rows or known >= seconds or stop == len(entries):
            units.append(Unit(len(units), start, stop))
            start, known = stop, 0.0
    return units
