"""docs/first_script.py, the docs' first page, on a folder of a few WAV files."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from makers.paths import ALLISON, ROOT
from makers.processes import ENVIRONMENT
from tokgen.audio.files import read_audio, write_audio
from tokgen.corpus.listed import open_corpus

SCRIPT = ROOT / "docs" / "first_script.py"


def write_clips(folder: Path, n: int = 4) -> None:
    """Write the first clips of at least 3 s; the first one is speech.wav."""
    corpus = open_corpus(str(ALLISON), split="test", min_seconds=3.0, max_seconds=6.0)
    for i, entry in enumerate(corpus.entries[:n]):
        name = "speech.wav" if i == 0 else f"{i}.wav"
        write_audio(folder / name, corpus.load(entry, 16000).waveform, 16000)


def test_the_first_script_is_short() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 15 and "#" not in text
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import tokgen"]


def test_the_first_script_goes_from_a_folder_to_scores(tmp_path: Path) -> None:
    write_clips(tmp_path / "my_audio")
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT)]
    for _ in range(2):  # the second run finds the tokens and the model
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
    made, rate = read_audio(tmp_path / "continued.wav")
    assert (rate, made.shape[-1]) == (16000, 48000)
    assert "continuing at step 50 of 50" in done.stdout
    table = done.stdout.splitlines()[1:]
    assert table[0].split()[:3] == ["row", "MOS", "speaker"], done.stdout
    assert [line.split()[0] for line in table[1:3]] == ["original", "continued"]
    assert (tmp_path / "my_model" / "model" / "model.safetensors").is_file()
