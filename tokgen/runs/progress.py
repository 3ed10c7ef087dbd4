"""Progress bars: one line on a terminal, a few short lines in a log file.

On a terminal a bar is drawn by tqdm. In a file or a pipe it writes a line at the start, a line
whenever another 10 % are done and a minute has passed since the last line, and a line at the end:

    train: 400/1000 step (40 %), 3.2 step/s, 02:05 elapsed, 03:08 left, loss=4.211
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TextIO

from tqdm import tqdm

__all__ = [
    "LEAST_SECONDS",
    "SECONDS",
    "SECONDS_FORM",
    "SHARE",
    "UNKNOWN_SECONDS",
    "ProgressBar",
    "progress_bar",
    "quiet_libraries",
    "quiet_logs",
]

SHARE = 0.1  # of the total, between lines of a log file
SECONDS = 60.0  # between lines of a log file, at least
UNKNOWN_SECONDS = 300.0  # between lines if the total is unknown
LEAST_SECONDS = 1.0  # of work before a rate means something
SECONDS_FORM = "{l_bar}{bar}| {n:.0f}/{total_fmt} s [{elapsed}<{remaining}]"  # of audio


def progress_bar(
    label: str,
    items: Iterable[Any] | None = None,
    *,
    total: float | None = None,
    initial: float = 0,
    unit: str = "it",
    delay: float = 0.0,
    show: bool = True,
) -> ProgressBar:
    """Make a progress bar. Under a launcher only the first process shows it.

    Args:
        label: what is done, in front of the count.
        items: loop over the bar to get them, counted.
        total: expected count; by default the number of items, or unknown.
        initial: count at the start, for work that continues.
        unit: of the count, singular.
        delay: seconds before anything is shown.
        show: False for a bar that only counts.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    first = int(os.environ.get("RANK") or 0) == 0
    return ProgressBar(items, label, total, initial, unit, delay, show and first)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide the bars of datasets, huggingface_hub and transformers, those that are imported."""
    libraries = [sys.modules.get(name) for name in ("datasets", "huggingface_hub.utils")]
    switches = [
        (lambda m=module: not m.are_progress_bars_disabled(),
         module.enable_progress_bars, module.disable_progress_bars)
        for module in libraries if module is not None
    ]  # fmt: skip
    if (transformers := sys.modules.get("transformers")) is not None:
        bars = transformers.utils.logging  # its switch turns that of huggingface_hub too
        switches.insert(
            0, (bars.is_progress_bar_enabled, bars.enable_progress_bar, bars.disable_progress_bar)
        )
    before = [is_on() for is_on, _, _ in switches]
    for is_on, _, turn_off in switches:
        if is_on():
            turn_off()
    try:
        yield
    finally:
        for (is_on, turn_on, turn_off), was_on in zip(switches, before, strict=True):
            if is_on() != was_on:
                (turn_on if was_on else turn_off)()


def quiet_logs() -> AbstractContextManager[None]:
    """Hide libraries' progress bars, such as those of downloads, unless stderr is a terminal."""
    return nullcontext() if sys.stderr.isatty() else quiet_libraries()


class ProgressBar:
    """Counts work that is done, and shows the count, the rate and the time left on stderr.

    Use it as a context manager, or loop over it if it has items. See `progress_bar`.

    Attributes:
        n: count so far.
        disabled: nothing is shown.
    """

    def __init__(
        self,
        items: Iterable[Any] | None,
        label: str,
        total: float | None,
        initial: float,
        unit: str,
        delay: float,
        show: bool,
    ) -> None:
        self._items = items
        self.n, self._initial, self._total = initial, initial, total
        self._label, self._unit = label, unit
        self.disabled = not show
        self._file: TextIO = sys.stderr
        self._note = ""
        self._began = self._last = time.monotonic()
        self._shown = initial
        self._silent_until = self._began + delay
        self._wrote = self._closed = False
        self._bar: tqdm | None = None
        if show and self._file.isatty():
            form = SECONDS_FORM if unit == "s" and total else None
            self._bar = tqdm(
                desc=label, total=total, initial=initial, unit=unit, delay=delay,
                file=self._file, bar_format=form, **_size(self._file),
            )  # fmt: skip
        elif show and not delay:
            self._line(f"{self._label}: {self._count()}")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        if self._items is None:
            raise TypeError("the bar has no items to loop over: call update()")
        with self:
            for item in self._items:
                yield item
                self.update()

    def update(self, n: float = 1) -> None:
        """Count `n` more units."""
        self.n += n
        if self._bar is not None:
            self._bar.update(n)
        elif not self.disabled and self._due():
            self._report()

    def note(self, text: str = "", **values: Any) -> None:
        """Show a text or values beside the count, from the next update on."""
        self._note = ", ".join(
            [*([text] if text else []), *(f"{k}={v}" for k, v in values.items())]
        )
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)

    def refresh(self) -> None:
        """Draw the bar again, on a terminal."""
        if self._bar is not None:
            self._bar.refresh()

    def write(self, text: str) -> None:
        """Print a line to stdout, above the bar."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Show the last state. Further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        if self._bar is not None:
            self._bar.close()
        elif not self.disabled and (self._wrote or time.monotonic() >= self._silent_until):
            self._report()

    def _due(self) -> bool:
        now = time.monotonic()
        if now < self._silent_until or (self._total is not None and self.n >= self._total):
            return False  # close() writes the last line
        if not self._total:
            return now - self._last >= UNKNOWN_SECONDS
        return now - self._last >= SECONDS and self.n - self._shown >= SHARE * self._total

    def _report(self) -> None:
        seconds = time.monotonic() - self._began
        done = self.n - self._initial
        parts = [self._count()]
        known = done > 0 and seconds >= LEAST_SECONDS
        if known:
            rate = done / seconds
            parts.append(f"{rate:.3g} {self._unit}/s" if rate >= 1 else
                         f"{1 / rate:.3g} s/{self._unit}")  # fmt: skip
        parts.append(f"{tqdm.format_interval(seconds)} elapsed")
        if self._total is not None and known and self.n < self._total:
            left = (self._total - self.n) * seconds / done
            parts.append(f"{tqdm.format_interval(left)} left")
        if self._note:
            parts.append(self._note)
        self._line(f"{self._label}: {', '.join(parts)}")

    def _count(self) -> str:
        form = ".1f" if self._unit == "s" else ".6g"  # seconds of audio are not whole
        if self._total is None:
            return f"{self.n:{form}} {self._unit}"
        share = f" ({100 * self.n / self._total:.0f} %)" if self._total else ""
        return f"{self.n:{form}}/{self._total:{form}} {self._unit}{share}"

    def _line(self, text: str) -> None:
        self._wrote, self._last, self._shown = True, time.monotonic(), self.n
        print(text, file=self._file, flush=True)


def _size(terminal: TextIO) -> dict[str, Any]:
    """Let tqdm follow the terminal's width; 80 for a terminal that does not tell its size."""
    if os.get_terminal_size(terminal.fileno()).columns:
        return {"dynamic_ncols": True}
    return {"ncols": 80, "nrows": 24}
