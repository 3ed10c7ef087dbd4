"""Progress bars: one line on a terminal, few lines in a log file, none if they are off."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import textwrap

import datasets
import pytest
from huggingface_hub import utils as hub
from transformers.utils import logging

from tokgen.runs import progress
from tokgen.runs.progress import progress_bar, quiet_libraries, quiet_logs


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only by hand, in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def train(clock, seconds_per_step, steps=1000):
    with progress_bar("training", total=steps, unit="step") as bar:
        for step in range(steps):
            clock[0] += seconds_per_step
            if step % 10 == 0:
                bar.note(loss=f"{1 / (step + 1):.3f}")
            bar.update()


def test_a_log_file_gets_a_line_each_tenth(clock, capsys):
    train(clock, 1.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "training: 0/1000 step (0 %)"
    assert lines[1] == (
        "training: 100/1000 step (10 %), 1 step/s, 01:40 elapsed, 15:00 left, loss=0.011"
    )
    assert lines[-1] == "training: 1000/1000 step (100 %), 1 step/s, 16:40 elapsed, loss=0.001"


def test_fast_work_writes_a_line_a_minute(clock, capsys):
    train(clock, 0.25)
    counts = re.findall(r"training: (\d+)/", capsys.readouterr().err)
    assert counts == ["0", "240", "480", "720", "960", "1000"]


def test_slow_units_show_their_seconds(clock, capsys):
    train(clock, 70, steps=2)
    assert "70 s/step, 01:10 elapsed, 01:10 left" in capsys.readouterr().err


def test_continued_work_counts_its_own_rate(clock, capsys):
    with progress_bar("training", total=100, initial=50, unit="step") as bar:
        clock[0] += 100
        bar.update(25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 50/100 step (50 %)"
    assert lines[1] == "training: 75/100 step (75 %), 4 s/step, 01:40 elapsed, 01:40 left"


def test_work_of_no_time_shows_no_rate(clock, capsys):
    with progress_bar("resuming", total=8, unit="clip") as bar:
        clock[0] += 1e-6
        bar.update(8)
    assert capsys.readouterr().err.splitlines()[-1] == ("resuming: 8/8 clip (100 %), 00:00 elapsed")


def test_an_unknown_total_has_a_count_and_a_rate(clock, capsys):
    with progress_bar("listing", unit="file") as bar:
        for _ in range(700):
            clock[0] += 1
            bar.update()
    counts = re.findall(r"listing: (\d+) file", capsys.readouterr().err)
    assert counts == ["0", "300", "600", "700"]


def test_seconds_of_audio_have_one_decimal(clock, capsys):
    with progress_bar("audio", total=5.51638, unit="s") as bar:
        clock[0] += 20
        bar.update(5.51638)
    assert "audio: 5.5/5.5 s (100 %)" in capsys.readouterr().err


def test_a_delayed_bar_shows_only_long_work(clock, capsys):
    for seconds in (1, 3):
        for _ in progress_bar(f"{seconds} s", range(10), unit="file", delay=20):
            clock[0] += seconds
    said = capsys.readouterr().err
    assert "1 s:" not in said and said.splitlines()[-1].startswith("3 s: 10/10 file (100 %)")


def test_a_bar_counts_its_items_and_can_be_off(monkeypatch, capsys):
    shown = progress_bar("a", [1, 2, 3])
    assert list(shown) == [1, 2, 3] and shown.n == 3
    hidden = progress_bar("b", [1, 2, 3], show=False)
    assert list(hidden) == [1, 2, 3] and hidden.n == 3
    monkeypatch.setenv("RANK", "1")  # the second process of a launcher
    assert list(progress_bar("c", [1, 2])) == [1, 2]
    said = capsys.readouterr().err
    assert "a: 3/3 it (100 %)" in said and "b:" not in said and "c:" not in said
    with pytest.raises(TypeError, match="no items"):
        list(progress_bar("d", show=False))


def test_an_interrupted_bar_says_how_far_it_came(clock, capsys):
    with pytest.raises(KeyboardInterrupt), progress_bar("training", total=10, unit="step") as bar:
        clock[0] += 4
        bar.update(2)
        raise KeyboardInterrupt
    assert "training: 2/10 step (20 %), 2 s/step" in capsys.readouterr().err


LIBRARIES = {
    "datasets": (
        lambda: not datasets.are_progress_bars_disabled(),
        datasets.enable_progress_bars,
        datasets.disable_progress_bars,
    ),
    "huggingface_hub": (
        lambda: not hub.are_progress_bars_disabled(),
        hub.enable_progress_bars,
        hub.disable_progress_bars,
    ),
    "transformers": (
        logging.is_progress_bar_enabled,
        logging.enable_progress_bar,
        logging.disable_progress_bar,
    ),
}


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("was_on", [True, False])
def test_bars_of_libraries_are_hidden_for_a_while(name, was_on):
    is_on, switch_on, switch_off = LIBRARIES[name]
    before = is_on()
    try:
        (switch_on if was_on else switch_off)()
        with pytest.raises(KeyError), quiet_libraries():
            assert not is_on()
            raise KeyError
        assert is_on() is was_on
        with quiet_logs():  # stderr is no terminal here
            assert not is_on()
    finally:
        (switch_on if before else switch_off)()


LOOP = textwrap.dedent(
    """
    from tokgen.runs.progress import progress_bar
    with progress_bar("training", total=1000, unit="step") as bar:
        for step in range(1000):
            bar.note(loss=f"{step}")
            bar.update()
            if step == 500:
                bar.write("half")
    """
)


def test_a_thousand_steps_write_few_lines_to_a_file(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", LOOP], stderr=log, stdout=log, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 3 and "half" in lines and "\r" not in (tmp_path / "log").read_text()


def test_a_terminal_gets_one_line():
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", LOOP], stderr=theirs, stdout=subprocess.PIPE, check=True
    )
    os.close(theirs)
    said = b""
    while chunk := _read(ours):
        said += chunk
    os.close(ours)
    assert done.stdout == b"half\n"
    assert said.count(b"\n") == 1 and said.count(b"\r") > 1  # drawn again and again, in one line
    assert b"training: 100%" in said and b"1000/1000" in said and b"999" in said


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux: the other end is closed
        return b""
