"""Runs of earlier versions go on: their settings.json lacks settings that were added later."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import vocode_mfcc
from tokgen.codec_training.settings import CodecLossWeights, CodecTrainingSettings
from tokgen.comparison import settings as comparison
from tokgen.runs.settings import claim_run, save_settings

LATER = ("metrics", "speaker")  # of vocode_mfcc: added with the shared settings of metrics


def test_a_vocoding_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    settings = vocode_mfcc.Settings()
    save_settings(tmp_path, settings)
    content = json.loads((tmp_path / "settings.json").read_text())
    for name in LATER:
        del content["settings"][name]
    (tmp_path / "settings.json").write_text(json.dumps(content))
    claim_run(tmp_path, settings, free=vocode_mfcc.MAY_CHANGE)
    content["settings"]["steps"] = 3
    (tmp_path / "settings.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="holds a run with steps = 3, not 100000"):
        claim_run(tmp_path, settings, free=vocode_mfcc.MAY_CHANGE)


def test_settings_that_may_change_exist() -> None:
    for cls, names in (
        (vocode_mfcc.Settings, vocode_mfcc.MAY_CHANGE),
        (comparison.ComparisonSettings, comparison.MAY_CHANGE),
    ):
        assert set(names) <= set(asdict(cls()))


def test_a_codec_training_of_an_earlier_version_goes_on_with_the_defaults(tmp_path: Path) -> None:
    def settings(**more) -> CodecTrainingSettings:
        return CodecTrainingSettings(model={"width": 24}, steps=5, **more)

    save_settings(tmp_path, settings())
    content = json.loads((tmp_path / "settings.json").read_text())
    for name in ("balancer", "adversarial_loss", "discriminator_share", "betas"):
        del content["settings"][name]
    del content["settings"]["weights"]["time"]
    (tmp_path / "settings.json").write_text(json.dumps(content))
    claim_run(tmp_path, settings())
    for more, message in (
        ({"balancer": True}, "a run with balancer = False, not True"),
        ({"weights": CodecLossWeights(time=0.1)}, r"weights.time = 0.0, not 0.1"),
        ({"betas": (0.5, 0.9)}, r"betas = \[0.8, 0.99\], not \[0.5, 0.9\]"),
    ):
        with pytest.raises(ValueError, match=message):
            claim_run(tmp_path, settings(**more))
