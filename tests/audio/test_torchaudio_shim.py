"""torchaudio and transformers' audio classes can be imported next to a CPU-only torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from makers.paths import ROOT

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
