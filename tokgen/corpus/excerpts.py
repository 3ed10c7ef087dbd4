"""Seeded excerpts of a corpus: pieces of equal length from random places.

corpus = open_corpus("LJSpeech-1.1")
excerpts = sample_excerpts(corpus, n=500, seconds=1.0, seed=0)
excerpts.entries[0].id  # "wavs/LJ001-0003@2.417"
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from tokgen.audio.files import AudioError, open_blocks
from tokgen.corpus.cuts import Cut, CutStore
from tokgen.corpus.entries import Entry, Rejection
from tokgen.corpus.listed import Corpus

__all__ = ["sample_excerpts"]


def sample_excerpts(corpus: Corpus, *, n: int, seconds: float, seed: int) -> Corpus:
    """Draw n excerpts of equal length from the clips of a corpus.

    A clip is drawn in proportion to its length, and the excerpt's start is uniform over the clip,
    in whole milliseconds. Clips shorter than an excerpt are never drawn. Excerpts may overlap, so n
    can be larger than the corpus has pieces side by side, but no two are the same. The same
    arguments give the same excerpts on every machine.

    Silence is not avoided: a silent excerpt becomes a rejection when it is loaded, as a silent clip
    does.

    Args:
        corpus: its durations are measured where they are unknown.
        n: number of excerpts.
        seconds: length of each.
        seed: another seed draws other excerpts.
    Returns:
        a corpus of n entries with ids "CLIP@START" (START in seconds), in the order of the corpus.
        Speaker, split and language are those of the clip. An excerpt has no transcript.
    Raises:
        ValueError: n is under 1, seconds is under a millisecond, no clip is long enough, or the
            clips have fewer than n different excerpts.
    """
    length = round(1000 * seconds)
    if n < 1 or length < 1:
        raise ValueError(f"n = {n}, seconds = {seconds}: must be at least 1 and 0.001")
    rejections = list(corpus.rejections)
    clips = _measured(corpus, length, rejections)
    if not clips:
        raise ValueError(
            f"{corpus.name}: none of its {len(corpus)} clips has {seconds:g} s for an excerpt; "
            "take shorter excerpts"
        )
    if n > (most := sum(duration - length + 1 for _, duration in clips)):
        raise ValueError(f"n = {n}: {corpus.name} has {most} different excerpts of {seconds:g} s")
    places = _draw([duration for _, duration in clips], n, length, seed)
    entries, cuts = [], []
    for key, (clip, start) in enumerate(places):
        entry, at = clips[clip][0], f"{start / 1000:.3f}"
        cuts.append(Cut(entry.key, start, length))
        entries.append(
            replace(
                entry,
                id=f"{entry.id}@{at}",
                source=f"{entry.source} at {at} s",
                text=None,
                seconds=length / 1000,
                key=key,
            )
        )
    store = CutStore(corpus.store, cuts)
    return Corpus(corpus.name, entries, rejections, store, corpus.longest_seconds)


def _measured(corpus: Corpus, length: int, rejections: list[Rejection]) -> list[tuple[Entry, int]]:
    """Return the clips that hold an excerpt, with their durations in milliseconds."""
    found = []
    for entry in corpus.select(min_seconds=length / 1000).entries:
        duration = entry.seconds
        try:
            if duration is None:
                duration = _count(corpus, entry)
        except AudioError as error:
            rejections.append(Rejection(entry.source, error.reason))
        else:
            if (whole := int(1000 * duration)) >= length:
                found.append((entry, whole))
    return found


def _count(corpus: Corpus, entry: Entry) -> float:
    """Return the duration of a clip whose header has none."""
    with corpus.store.borrow(entry.key) as (data, name), open_blocks(data, name=name) as blocks:
        return sum(block.shape[-1] for block in blocks) / blocks.sample_rate


def _draw(durations: Sequence[int], n: int, length: int, seed: int) -> list[tuple[int, int]]:
    """Draw n different places: a clip's position and a start, in order. All times in ms."""
    ends = list(accumulate(durations))
    places: set[tuple[int, int]] = set()
    draw = 0
    while len(places) < n:
        digest = hashlib.sha256(f"{seed} {draw}".encode()).digest()
        draw += 1
        moment, fraction = (int.from_bytes(part, "big") for part in (digest[:16], digest[16:]))
        clip = bisect.bisect_right(ends, moment % ends[-1])
        places.add((clip, fraction % (durations[clip] - length + 1)))
    return sorted(places)
