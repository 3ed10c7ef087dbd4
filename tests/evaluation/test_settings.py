"""Settings of scoring: wrong ones are refused before anything is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tokgen.evaluation.settings import MetricSettings, ScoringSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["pesk"]}, r"metrics \['pesk'\] \(did you mean pesq\?\): known are"),
        ({"metrics": ["pesq,pesq"]}, "give each once"),
        ({"asr": "moonshin"}, r"asr 'moonshin' \(did you mean moonshine\?\): known are auto"),
        ({"asr": "auto:x"}, "known are auto, wav2vec2, whisper, moonshine"),
        ({"asr": "whisper:./none"}, "no such folder"),
        ({"fad": "vggish"}, "known are clap, wavlm, resemblyzer"),
        ({"asr": "wav2vec2:"}, "give a folder or a hub id after the colon"),
        ({"asr": "wav2vec2:./none"}, "no such folder"),
        ({"speaker": "wavlm:none/at/all"}, "no such folder"),
        ({"cer_cap": 0.0}, "cer_cap = 0.0: must be above 0"),
        ({"speaker": "ecapa"}, "known are auto, wavlm, resemblyzer"),
        ({"mos": "squim"}, "mos squim needs"),
        ({"workers": -1}, "workers is -1, but must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ScoringSettings(**settings)


def test_names_of_models_are_kept(tmp_path) -> None:
    assert MetricSettings(asr=f"wav2vec2:{tmp_path}").asr == f"wav2vec2:{tmp_path}"
    assert MetricSettings(speaker="wavlm:an/id").speaker == "wavlm:an/id"


def test_wrong_settings_are_refused_before_imports(tiny_corpus) -> None:
    script = f"""
import sys
from tokgen.cli.main import main
flags = ["score", "--corpus", {str(tiny_corpus)!r}, "--codec", "speech-16k"]
for wrong in (["--metrics", "polqa"], ["--asr", "kaldi"], ["--workers", "-1"],
              ["--mos", "squim"], ["--codec", "speech-16k"], ["--out", "a.txt"],
              ["--per_clip", "a.txt"], ["--clips", "0"], ["--fad", "vggish"],
              ["--out", "a.json", "--per_clip", "a.json"]):
    assert main([*flags, *wrong]) == 2, wrong
heavy = {{"torch", "transformers", "pesq", "datasets", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)
