"""Decode the utterances of a corpus, whole or in blocks, and divide a corpus into units.

    for unit in corpus.units():
        for entry in corpus.read_unit(unit):
            utterance = corpus.load(entry, 16000)

A worker processes one unit at a time. Units depend on the corpus only, so they are the same for
any number of workers on any machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tokgen.audio.blocks import AudioBlocks
from tokgen.audio.files import AudioError, open_blocks, read_audio, read_duration
from tokgen.corpus.entries import Entry, Rejection
from tokgen.storage import StoreError

__all__ = [
    "LONGEST_SECONDS",
    "LONGEST_STREAM_SECONDS",
    "SILENCE_PEAK",
    "Readable",
    "Unit",
    "Utterance",
    "check_loud",
    "within",
]

LONGEST_SECONDS = 3600.0  # for `load`, which holds the waveform: 230 MB for an hour at 16 kHz
LONGEST_STREAM_SECONDS = 24 * 3600.0  # for `open`, which holds one block
SILENCE_PEAK = 10 ** (-60 / 20)  # -60 dBFS


@dataclass(frozen=True)
class Unit:
    """A range of a corpus that one worker processes at a time.

    Attributes:
        index: position among the corpus' units.
        start, stop: range of the corpus' entries, or of a stream's shards.
    """

    index: int
    start: int
    stop: int


@dataclass
class Utterance:
    """One utterance with its audio: waveform [1, N], or [C, N] if channels are kept, in [-1, 1].

    The other attributes are those of `Entry`.
    """

    id: str
    waveform: Tensor
    sample_rate: int
    text: str | None
    speaker: str | None
    split: str | None
    language: str | None = None


class Readable(ABC):
    """Interface of a corpus: a listed `Corpus` or a `StreamCorpus`. Picklable.

    Attributes:
        name: name of the folder, file or dataset.
        rejections: what listing left out. A selection keeps all of them, so count them once.
        longest_seconds: `load` refuses longer audio, so that no file fills the memory.
    """

    name: str
    rejections: list[Rejection]
    longest_seconds: float

    @property
    @abstractmethod
    def n_entries(self) -> int | None:
        """Number of entries; None if it is not known before reading."""

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """True if all audio is on this machine, so that forked processes can read it."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the corpus' content."""

    @abstractmethod
    def units(self, rows: int = 64, seconds: float = 600.0) -> list[Unit]:
        """Divide the corpus into units of consecutive entries.

        Args:
            rows: largest number of entries in a unit.
            seconds: a unit ends with the entry whose known duration brings the sum to this.
        Raises:
            ValueError: rows is under 1, or seconds is not above 0.
        """

    @abstractmethod
    def read_unit(self, unit: Unit) -> Iterator[Entry]:
        """Yield the entries of a unit, in order."""

    @abstractmethod
    def _borrow(self, entry: Entry) -> AbstractContextManager[tuple[Path | bytes, str]]:
        """Yield the entry's file or its bytes, and a name whose suffix tells the format."""

    def _measure(self, entry: Entry) -> float | None:
        """Return the known duration, or else that of the audio's header, or None."""
        if entry.seconds is not None:
            return entry.seconds
        try:
            with self._borrow(entry) as (data, name):
                return read_duration(data, name=name)
        except AudioError:
            return None

    def load(self, entry: Entry, sample_rate: int, channels: int = 1) -> Utterance:
        """Decode one utterance.

        Args:
            sample_rate: Hz.
            channels: 1 mixes the channels; C keeps C of them, see `open_blocks`.
        Raises:
            AudioError: the audio cannot be read (see `read_audio`), is longer than
                `longest_seconds`, or is silent (peak under -60 dBFS).
        """
        try:
            with self._borrow(entry) as (data, name):
                waveform, rate = read_audio(
                    data,
                    sample_rate=sample_rate,
                    name=name,
                    max_seconds=self.longest_seconds,
                    channels=channels,
                )
        except AudioError as error:
            raise AudioError(entry.source, error.reason) from error
        except StoreError:
            raise
        except OSError as error:  # a failing disk
            raise AudioError(entry.source, error.strerror or str(error)) from error
        check_loud(entry, waveform.abs().max().item())
        return Utterance(
            entry.id, waveform, rate, entry.text, entry.speaker, entry.split, entry.language
        )

    @contextmanager
    def open(
        self,
        entry: Entry,
        sample_rate: int | None,
        longest_seconds: float = LONGEST_STREAM_SECONDS,
        channels: int = 1,
    ) -> Iterator[AudioBlocks]:
        """Decode one utterance in blocks, for recordings of hours.

        Args:
            sample_rate: Hz; None keeps the file's rate.
            longest_seconds: refuse longer audio.
            channels: as for `load`.
        Yields:
            blocks that together equal the waveform of `load`. Silence is not refused: call
            `check_loud` for that.
        Raises:
            AudioError: the audio cannot be read (see `open_blocks`) or is longer than
                `longest_seconds`. This may be raised while the blocks are read.
        """
        label = None
        try:
            with (
                self._borrow(entry) as (data, label),
                open_blocks(
                    data,
                    sample_rate=sample_rate,
                    name=label,
                    max_seconds=longest_seconds,
                    channels=channels,
                ) as blocks,
            ):
                yield blocks
        except AudioError as error:
            if error.source == label or label is None:
                raise AudioError(entry.source, error.reason) from error
            raise

    def utterances(
        self, sample_rate: int, *, rejected: list[Rejection], channels: int = 1
    ) -> Iterator[Utterance]:
        """Decode all utterances, in order.

        Args:
            sample_rate, channels: as for `load`.
            rejected: receives the utterances that cannot be loaded. Rejections from listing are
                not repeated here.
        """
        for unit in self.units():
            for entry in self.read_unit(unit):
                try:
                    utterance = self.load(entry, sample_rate, channels)
                except AudioError as error:
                    rejected.append(Rejection(error.source, error.reason))
                else:
                    yield utterance


def check_loud(entry: Entry, peak: float) -> None:
    """Raise `AudioError` if an utterance's largest absolute sample is under -60 dBFS."""
    if peak < SILENCE_PEAK:
        raise AudioError(entry.source, f"silence: its peak {peak:.2g} is under -60 dBFS")


def within(seconds: float | None, low: float | None, high: float | None) -> bool:
    """Return whether a duration is in a closed range, or unknown. A limit of None is no limit."""
    if seconds is None:
        return True
    return (low is None or seconds >= low) and (high is None or seconds <= high)
