"""How far a tokenizing run is, told by workers in whatever process they are."""

from __future__ import annotations

import multiprocessing
import os
import time

from tqdm import tqdm

_PLACES = 1024


class Progress:
    """A bar of rows, hours of audio and the real-time factor: seconds of work per second of audio.

    Args:
        name: of the corpus.
        total: entries, None where nobody knows.
        n_done: of them, by earlier runs.
        show: the bar.
    """

    def __init__(self, name: str, total: int | None, n_done: int, show: bool) -> None:
        self.bar = tqdm(
            desc=f"tokenizing {name}",
            total=total,
            initial=n_done,
            unit="row",
            disable=not show,
        )
        self.began = time.monotonic()
        self.seconds = 0.0
        self._shared: Counter | None = None
        self._seen = (0.0, 0.0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def add(self, n_rows: int, seconds: float) -> None:
        """Rows were encoded, of so many seconds of audio."""
        self.seconds += seconds
        factor = (time.monotonic() - self.began) / max(self.seconds, 1e-9)
        self.bar.set_postfix_str(
            f"{self.seconds / 3600:.2f} h of audio, RTF {factor:.4f}", refresh=False
        )
        self.bar.update(n_rows)

    def shared(self) -> Counter:
        """What worker processes may add to; `look` shows it."""
        self.look()
        self._shared, self._seen = Counter(), (0.0, 0.0)
        return self._shared

    def look(self) -> None:
        """Show what the workers have added since."""
        if self._shared is not None:
            rows, seconds = self._shared.total()
            self.add(int(rows - self._seen[0]), seconds - self._seen[1])
            self._seen = (rows, seconds)

    def say(self, text: str) -> None:
        """Show something else beside the bar."""
        self.bar.set_postfix_str(text)


class Counter:
    """Rows and seconds in memory that processes share, each in places of its own: no lock that
    one could die with. Two processes in one place would only lose counts of the bar."""

    def __init__(self) -> None:
        self.values = multiprocessing.RawArray("d", 2 * _PLACES)

    def add(self, n_rows: int, seconds: float) -> None:
        place = 2 * (os.getpid() % _PLACES)
        self.values[place] += n_rows
        self.values[place + 1] += seconds

    def total(self) -> tuple[float, float]:
        """Rows and seconds of all processes."""
        return sum(self.values[::2]), sum(self.values[1::2])
