"""The clips of a drift measurement: first seconds, or random excerpts as in the paper."""

from __future__ import annotations

import math
from contextlib import suppress

from torch import Tensor

from tokgen.audio.files import AudioError
from tokgen.corpus.entries import Rejection
from tokgen.corpus.excerpts import sample_excerpts
from tokgen.corpus.listed import Corpus
from tokgen.corpus.reading import SILENCE_PEAK
from tokgen.runs.progress import progress_bar

__all__ = ["CLIP_SECONDS", "PAPER_CLIPS", "PAPER_SECONDS", "DriftClips", "find_audio_rate"]

CLIP_SECONDS = 5.0  # of first seconds
PAPER_CLIPS, PAPER_SECONDS = 500, 1.0  # excerpts of Code Drift, section III
_CHECK_RATE = 16_000  # Hz


class DriftClips:
    """The first seconds of each utterance of a corpus, the same for every codec.

    Args:
        seconds: length to cut utterances to; None keeps them whole.
        n_clips: number of utterances, from the first on; None for all. Those that cannot be read
            do not count; they become rejections of the corpus.
    Attributes:
        label: what the clips are, as text.
    """

    def __init__(
        self, corpus: Corpus, seconds: float | None = CLIP_SECONDS, n_clips: int | None = None
    ):
        if seconds is not None and not seconds > 0:
            raise ValueError(f"seconds = {seconds}: must be above 0, or None to keep clips whole")
        self.corpus, self.seconds = corpus, seconds
        self.label = "whole clips" if seconds is None else f"first {seconds:g} s of clips"
        if n_clips is not None:
            self._keep(n_clips)

    @classmethod
    def excerpts(
        cls,
        corpus: Corpus,
        n_clips: int = PAPER_CLIPS,
        seconds: float = PAPER_SECONDS,
        seed: int = 0,
    ) -> DriftClips:
        """Draw random excerpts of a corpus, as the paper does (see `sample_excerpts`).

        Silent excerpts become rejections when they are loaded.

        Raises:
            ValueError: the corpus has fewer seconds than the excerpts together.
        """
        long_enough = corpus.select(min_seconds=seconds)
        known = sum(entry.seconds or math.inf for entry in long_enough.entries)
        if known < n_clips * seconds:
            most = int(known / seconds)
            advice = f"{most} clips or fewer" if most else "shorter clip_seconds"
            raise ValueError(
                f"clips = {n_clips}: {n_clips} excerpts of {seconds:g} s need "
                f"{n_clips * seconds:g} s, but {corpus.name} has {known:.0f} s in clips of "
                f"{seconds:g} s or more; give {advice}"
            )
        drawn = sample_excerpts(long_enough, n=n_clips, seconds=seconds, seed=seed)
        clips = cls(drawn, seconds)
        source = f", from {known:.0f} s" if known < math.inf else ""
        clips.label = f"{n_clips} excerpts of {seconds:g} s (seed {seed}{source})"
        return clips

    def _keep(self, n_clips: int) -> None:
        """Keep the first utterances that can be read."""
        if n_clips < 1:
            raise ValueError(f"n_clips = {n_clips}: must be at least 1, or None for all clips")
        kept: list[str] = []
        unread: list[Rejection] = []
        entries = progress_bar(
            f"clips of {self.corpus.name}", self.corpus.entries, unit="clip", delay=2
        )
        for index, entry in enumerate(entries):
            try:
                self.load(index, _CHECK_RATE)
            except AudioError as error:
                unread.append(Rejection(error.source, error.reason))
            else:
                kept.append(entry.id)
            if len(kept) == n_clips:
                break
        self.corpus = self.corpus.select(ids=kept)
        self.corpus.rejections += unread

    def __len__(self) -> int:
        return len(self.corpus)

    def ids(self) -> list[str]:
        return [entry.id for entry in self.corpus.entries]

    def load(self, index: int, sample_rate: int) -> Tensor:
        """Load a clip as a waveform [1, N].

        Raises:
            AudioError: it cannot be read, or it is silent.
        """
        entry = self.corpus.entries[index]
        waveform = self.corpus.load(entry, sample_rate).waveform
        if self.seconds is None:
            return waveform
        excerpt = waveform[:, : round(self.seconds * sample_rate)]
        if excerpt.abs().max() < SILENCE_PEAK:
            raise AudioError(entry.source, f"its first {self.seconds:g} s are silent")
        return excerpt

    @property
    def fingerprint(self) -> str:
        return f"{self.corpus.fingerprint} {self.seconds}"


def find_audio_rate(corpus: Corpus) -> int | None:
    """Return the sample rate in Hz of the first clip that can be read; None if none can."""
    for entry in corpus.entries:
        with suppress(AudioError), corpus.open(entry, None) as blocks:
            return blocks.sample_rate
    return None
