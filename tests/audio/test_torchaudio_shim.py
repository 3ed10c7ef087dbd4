"""torchaudio and transformers' audio classes can be imported next to a CPU-only torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from makers.paths import ROOT
from tokgen.audio.torchaudio_shim import import_torchaudio

FIRST = {
    "tokgen first": "import tokgen",
    "transformers first": "import transformers, tokgen",
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_transformers_audio_classes_can_be_imported(first: str):
    code = f"""
{first}
from transformers import AutoFeatureExtractor, WhisperFeatureExtractor
extractor = AutoFeatureExtractor.from_pretrained({str(ROOT / "codecs" / "speech-16k")!r})
assert extractor.sampling_rate == 16000
import torchaudio
assert torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, 40, 16000).shape == (201, 40)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize(
    ("extension", "stub"),
    [("COMPILED = True", False), ("raise OSError('libc10_cuda.so')", True)],
    ids=["loads", "fails"],
)
def test_a_stub_only_replaces_what_cannot_be_loaded(
    extension: str, stub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text("from torchaudio import _extension\n")
    (package / "_extension.py").write_text(extension + "\n")
    import_torchaudio()
    for name in [m for m in sys.modules if m.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = import_torchaudio()._extension
    assert hasattr(loaded, "COMPILED") != stub
    assert hasattr(loaded, "fail_if_no_align") == stub
    for name in [m for m in sys.modules if m.split(".")[0] == "torchaudio"]:
        del sys.modules[name]  # the real ones come back when monkeypatch undoes
