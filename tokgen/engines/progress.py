"""How far a tokenizing run is, told by workers in whatever process they are."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm


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

    def shared(self, context: Any) -> Counter:
        """What worker processes of `context` may add to; `look` shows it."""
        self.look()
        self._shared, self._seen = Counter(context), (0.0, 0.0)
        return self._shared

    def look(self) -> None:
        """Show what the workers have added since."""
        if self._shared is not None:
            rows, seconds = self._shared.values[:]
            self.add(int(rows - self._seen[0]), seconds - self._seen[1])
            self._seen = (rows, seconds)


class Counter:
    """Rows and seconds in memory that processes share."""

    def __init__(self, context: Any) -> None:
        self.values = context.Array("d", 2)

    def add(self, n_rows: int, seconds: float) -> None:
        with self.values.get_lock():
            self.values[0] += n_rows
            self.values[1] += seconds
