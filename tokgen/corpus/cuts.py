"""Pieces of audio files, cut out when they are read."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tokgen.audio.files import AudioError, open_blocks, write_audio
from tokgen.corpus.entries import AudioStore

__all__ = ["Cut", "CutStore"]


@dataclass(frozen=True)
class Cut:
    """A piece of a clip.

    Attributes:
        key: of the clip in its store.
        start: milliseconds.
        length: milliseconds; None reaches to the end of the clip.
    """

    key: int
    start: int = 0
    length: int | None = None

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.length is None


class CutStore(AudioStore):
    """Cuts pieces out of the audio of another store. A clip is decoded up to the piece's end."""

    def __init__(self, store: AudioStore, cuts: Sequence[Cut]) -> None:
        self.store, self.cuts = store, list(cuts)
        self.is_local = store.is_local

    @contextmanager
    def borrow(self, key: int) -> Iterator[tuple[Path | bytes, str]]:
        if self.cuts[key].is_whole:
            with self.store.borrow(self.cuts[key].key) as found:
                yield found
        else:
            yield self.fetch(key)

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        """Return the piece as a WAV file of floats, with the rate and channels of its clip."""
        cut = self.cuts[key]
        held, pieces = 0, []
        with (
            self.store.borrow(cut.key) as (data, name),
            open_blocks(data, name=name, channels=None) as blocks,
        ):
            rate = blocks.sample_rate
            first = cut.start * rate // 1000
            stop = math.inf if cut.length is None else first - (-cut.length * rate // 1000)
            for block in blocks:
                n = block.shape[-1]
                pieces.append(block[:, max(0, first - held) : int(min(n, stop - held))])
                held += n
                if held >= stop:
                    break
        if held <= first or held < stop < math.inf:
            end = cut.start if cut.length is None else cut.start + cut.length
            raise AudioError(
                name,
                f"has {held / rate:.3f} s, too few for a piece to {end / 1000:.3f} s: its header "
                "or metadata promises more",
            )
        wav = io.BytesIO()
        write_audio(wav, torch.cat(pieces, dim=-1), rate, "FLOAT", format="wav")
        return wav.getvalue(), f"{name}@{cut.start / 1000:.3f}.wav"

    def digest(self, key: int) -> str:
        cut = self.cuts[key]
        whole = self.store.digest(cut.key)
        return whole if cut.is_whole else f"{whole}, {cut.start} + {cut.length} ms"
