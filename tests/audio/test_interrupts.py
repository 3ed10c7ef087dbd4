"""Ctrl-C waits until the end of a `held_interrupts` block."""

from __future__ import annotations

import signal
import threading

import pytest

from tokgen.audio.blocks import held_interrupts


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        signal.raise_signal(signal.SIGINT)
        reached.append("end")
    assert reached == ["end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_does_not_swallow_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("cut short")


def test_nothing_happens_in_other_threads() -> None:
    seen = []

    def work() -> None:
        with held_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
