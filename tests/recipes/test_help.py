"""The help of every recipe describes every setting."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import train_entropy_model
import tts_masked
import vocode_mfcc
from makers.paths import ROOT
from tokgen.cli.parsing import texts_of
from tokgen.codec_training.ablation_settings import AblationSettings
from tokgen.codec_training.offline_settings import OfflineSettings
from tokgen.codec_training.settings import CodecTrainingSettings, TuningSettings
from tokgen.codec_training.variable_ablation.settings import VariableAblationSettings
from tokgen.comparison.settings import ComparisonSettings

SETTINGS = {
    "tts_masked": tts_masked.Settings,
    "vocode_mfcc": vocode_mfcc.Settings,
    "compare_codecs": ComparisonSettings,
    "train_codec": CodecTrainingSettings,
    "tune_idempotence": TuningSettings,
    "drift_ablation": AblationSettings,
    "variable_ablation": VariableAblationSettings,
    "train_entropy_model": train_entropy_model.Settings,
    "quantize_offline": OfflineSettings,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_text(name: str) -> None:
    cls = SETTINGS[name]
    texts = texts_of(cls)
    missing = [name for name in cls.__dataclass_fields__ if not texts.get(name)]
    assert not missing
    constants = {name: re.findall(r"`[A-Z_]{4,}`", text) for name, text in texts.items()}
    assert not any(constants.values())


READ = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end.code)
print(sorted({"torch", "accelerate", "transformers", "datasets"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", [x for x in SETTINGS if not x.endswith(("_ablation", "_offline"))])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stpes", "3"], "error: unrecognized arguments: --stpes 3; see --help"),
        (["--steps", "0"], "error: steps is 0, but must be at least 1"),
        (["--seed", "-1"], "error: seed is -1, but must be at least 0"),
    ],
)
def test_flags_are_checked_before_torch_is_imported(name, flags, message) -> None:
    assert read(name, *flags) == f"{message}\n[]\n"


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("vocode_mfcc", ["--corpus", "./nowhere"], "error: no folder or file ./nowhere"),
        ("tts_masked", ["--codec", "nowhere"], "error: no codec 'nowhere'; known: "),
        (
            "tts_masked",
            ["--text.size.kernel", "4"],
            "error: kernel = 4: must be odd",
        ),
        ("train_entropy_model", ["--codec", "nowhere"], "error: no codec 'nowhere'; known: "),
        ("train_entropy_model", ["--corpus", "./nowhere"], "error: no folder or file ./nowhere"),
        ("compare_codecs", ["--codec", "nowhere"], "error: no codec 'nowhere'; known: "),
        ("train_codec", ["--corpora", "[./nowhere]"], "error: no folder or file ./nowhere"),
        ("tune_idempotence", ["--codec", "nowhere"], "error: no codec 'nowhere'; known: "),
        ("drift_ablation", ["--codec", "nowhere"], "error: no codec 'nowhere'; known: "),
        ("drift_ablation", ["--tuning.steps", "0"], "error: steps is 0, but must be at least 1"),
        ("drift_ablation", ["--seeds", "0"], "error: seeds is 0, but must be at least 1"),
        ("drift_ablation", ["--corpus", "[./nowhere]"], "error: no folder or file ./nowhere"),
        ("quantize_offline", ["--codec", "nowhere"], "error: no codec 'nowhere'; known: "),
        (
            "quantize_offline",
            ["--quantizer", "vq"],
            "error: quantizer 'vq': known are kmeans, lsq, ",
        ),
        ("quantize_offline", ["--training.steps", "0"], "error: steps is 0, but must be at least "),
        (
            "quantize_offline",
            ["--codec", "speech-16k", "--corpora", "[./nowhere]"],
            "error: no folder or file ./nowhere",
        ),
        ("variable_ablation", ["--seeds", "0"], "error: seeds is 0, but must be at least 1"),
        (
            "variable_ablation",
            ["--training.corpora", "[./nowhere]"],
            "error: no folder or file ./nowhere",
        ),
        ("tune_idempotence", ["--loss", "latent"], "error: loss 'latent': known are enc, proj, co"),
    ],
)
def test_names_are_checked_before_torch_is_imported(name, flags, message) -> None:
    out = read(name, *flags)
    assert out.startswith(message) and out.endswith("\n[]\n") and out.count("\n") == 2


def read(name: str, *flags: str) -> str:
    """Start a recipe; returns its error and which of the slow libraries it imported."""
    command = [sys.executable, "-c", READ, ROOT / "recipes" / f"{name}.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert not done.stderr
    return done.stdout
