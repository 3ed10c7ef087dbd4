"""Fixtures of the tests of the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from makers.audio import make_tone
from tokgen.audio.files import write_audio
from tokgen.cli import main as cli


@pytest.fixture
def zoo(tiny_codec_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The zoo, which has the codec tiny."""
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    return tiny_codec_folder.parent


@pytest.fixture
def folder(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with audio of 0.3 s in a.wav and b.flac."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a.wav", "b.flac")):
        write_audio(name, make_tone(0.3, i), 16000)
    return tmp_path


@pytest.fixture
def tool(capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Run the command; returns exit code, output and errors."""

    def call(*words: object) -> tuple[int, str, str]:
        """Give the line, or its words one by one."""
        argv = [str(word) for word in words]
        argv = argv[0].split() if len(argv) == 1 else argv
        capsys.readouterr()
        code = cli.main(argv)
        return code, *capsys.readouterr()

    return call
