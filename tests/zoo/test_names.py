"""Checks of the names of codecs, before one is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tokgen.zoo.names import check_name, zoo_names


@pytest.fixture(autouse=True)
def zoo(tiny_codec_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))


def test_names_of_the_zoo_folders_and_hub_ids_pass(tiny_codec_folder: Path) -> None:
    assert "tiny" in zoo_names()
    for name in ("tiny", "tiny:6", tiny_codec_folder, f"{tiny_codec_folder}:6", "owner/name"):
        check_name(name)
    check_name("mp3:24", waveform=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", r"no codec 'tinny' \(did you mean tiny\?\); known: .*tiny.*mp3:KBPS and opus:KB"),
        ("aac:64", r"no codec 'aac'; known: .*tiny.*mp3:KBPS and opus:KBPS"),
        ("opsu:64", r"did you mean opus\?"),
        ("./none", r"no codec './none'; known"),
        ("opus", "opus: add a bitrate in kbps, such as opus:24"),
        ("opus:9999", "opus:9999: mono opus has 6 to 256 kbps"),
    ],
)
def test_wrong_names_are_explained(name: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_name(name, waveform=True)


def test_waveform_codecs_have_no_codes() -> None:
    with pytest.raises(ValueError, match="mp3:24 has no codes, only audio"):
        check_name("mp3:24")


def test_a_check_imports_no_torch() -> None:
    code = "import sys; from tokgen.zoo.names import check_name; check_name('tiny')"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)
