"""The progress bar of a tokenizing run, updated from any process."""

from __future__ import annotations

import multiprocessing
import os
import time

from tokgen.runs.progress import progress_bar

__all__ = ["Counter", "Progress"]

_PLACES = 1024


class Progress:
    """Shows rows, hours of audio, and the real-time factor (seconds of work per second of audio).

    Args:
        name: of the corpus.
        total: number of entries, or None if unknown.
        n_done: entries that earlier runs processed.
    """

    def __init__(self, name: str, total: int | None, n_done: int, show: bool) -> None:
        self.bar = progress_bar(
            f"tokenizing {name}", total=total, initial=n_done, unit="row", show=show
        )
        self.began = time.monotonic()
        self.seconds = 0.0
        self._shared: Counter | None = None
        self._seen = (0.0, 0.0)

    def close(self) -> None:
        self.bar.close()

    def add(self, n_rows: int, seconds: float) -> None:
        """Count encoded rows and the seconds of their audio."""
        self.seconds += seconds
        if self.seconds >= 1:  # less audio has no meaningful rate
            factor = (time.monotonic() - self.began) / self.seconds
            self.bar.note(f"{self.seconds / 3600:.2f} h of audio, RTF {factor:.4f}")
        self.bar.update(n_rows)

    def shared(self) -> Counter:
        """Return a counter that worker processes add to. `refresh` shows it."""
        self.refresh()
        self._shared, self._seen = Counter(), (0.0, 0.0)
        return self._shared

    def refresh(self) -> None:
        """Show what workers have added since the last call."""
        if self._shared is not None:
            rows, seconds = self._shared.total()
            self.add(int(rows - self._seen[0]), seconds - self._seen[1])
            self._seen = (rows, seconds)

    def show(self, text: str) -> None:
        """Show a text beside the bar."""
        self.bar.note(text)
        self.bar.refresh()


class Counter:
    """Counts rows and seconds in shared memory.

    Each process writes to its own place, so that no process can die while it holds a lock. If two
    processes share a place, only some of the bar's counts are lost.
    """

    def __init__(self) -> None:
        self.values = multiprocessing.RawArray("d", 2 * _PLACES)

    def add(self, n_rows: int, seconds: float) -> None:
        place = 2 * (os.getpid() % _PLACES)
        self.values[place] += n_rows
        self.values[place + 1] += seconds

    def total(self) -> tuple[float, float]:
        """Return the rows and seconds of all processes."""
        return sum(self.values[::2]), sum(self.values[1::2])
