"""train_codec.py trains a causal codec that starts from one of the zoo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from makers.audio import make_tone
from makers.paths import ROOT
from makers.recipes import run
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.networks.causal import fit_taps


def test_a_causal_codec_starts_from_the_zoo(
    tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    base = load_codec("tiny")
    config = yaml.safe_load((ROOT / "recipes/train_codec.live.yaml").read_text())
    config |= {
        "name": "live", "runs": str(tmp_path), "corpora": [str(tiny_corpus)], "start_from": "tiny",
        "model": {**base.model.config, "causal": True}, "batch_size": 2, "seconds": 0.25,
        "steps": 1, "ema": 0.0, "validation_min_seconds": 0.0, "mixed_precision": "no",
    }  # fmt: skip
    (tmp_path / "live.yaml").write_text(yaml.safe_dump(config))
    flags = ("--config", tmp_path / "live.yaml", "--joint_learning_rate", "1e-9")
    run("train_codec.py", *flags, fresh=True)  # with the zoo of this test
    codec = load_codec(tmp_path / "live/codec")
    assert codec.spec.latency_ms == 40
    found = codec.model.state_dict()
    for name, weight in fit_taps(codec.model, base.model).items():
        torch.testing.assert_close(found[name], weight, atol=1e-3, rtol=1e-3)  # half precision
    codec.stream().push(make_tone(0.1, 0)[None])


def _differences(name: str, other: str) -> tuple[dict, dict, set[str]]:
    first, second = (yaml.safe_load((ROOT / "recipes" / n).read_text()) for n in (name, other))
    return first, second, {k for k in first | second if first.get(k) != second.get(k)}


def test_the_recipe_has_the_size_and_the_bitrate_of_speech_16k() -> None:
    live, base, changed = _differences("train_codec.live.yaml", "train_codec.yaml")
    assert live["model"] == {**base["model"], "causal": True, "lookahead": 0}
    assert changed == {"name", "model", "start_from", "continuous_steps", "steps"}


def test_the_last_phase_is_that_of_speech_16k() -> None:
    names = ("train_codec.live_adversarial.yaml", "train_codec.adversarial.yaml")
    live, base, changed = _differences(*names)
    assert live["model"] == {**base["model"], "causal": True, "lookahead": 0}
    assert changed == {"name", "model", "start_from", "start_discriminator"}
