"""Completion of the `tokgen` command in bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = """
eval "$(tokgen completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
_python_argcomplete tokgen
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tokgen to", {"tokenize"}),
        ("tokgen re", {"report", "recipes"}),
        ("tokgen tokenize --con", {"--conditioning", "--config"}),
        ("tokgen tokenize --conditioning ", {"mfcc", "log_mel", "none"}),
        ("tokgen score --codec ti", {"tiny"}),
        ("tokgen info t", {"tiny"}),
        ("tokgen drift --codec tiny --ph", {"--phase"}),
        ("tokgen recipes copy voc", {"vocode_mfcc"}),
        ("tokgen completion ba", {"bash"}),
        ("tokgen score --metrics pe", {"pesq"}),
        ("tokgen score --device ", {"auto", "cpu", "cuda", "mps"}),
        ("tokgen score --asr m", {"moonshine"}),
        ("tokgen score --mos s", {"squim"}),
    ],
)
def test_bash_completes(line: str, expected: set[str], tmp_path: Path, tiny_codec_folder) -> None:
    command = tmp_path / "tokgen"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tokgen "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TOKGEN_ZOO": str(tiny_codec_folder.parent),
    }
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", line],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {word.strip() for word in done.stdout.splitlines()} == expected
