"""The recipe with an autoregressive model: resume to the same weights, and its outputs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from makers.paths import ROOT
from makers.recipes import TINY_MODEL, kill_when, launch, run
from tokgen.audio.files import read_audio
from tokgen.generation.generate import generate
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.delay import DelayTransformer
from tokgen.modelling.loading import load_transformer


@pytest.fixture
def flags(tiny_codec_folder, tiny_corpus, tmp_path):
    def make(name: str) -> list[object]:
        settings = {
            "config": ROOT / "recipes/vocode_mfcc.delay.yaml", "name": name, "runs": tmp_path,
            "codec": tiny_codec_folder, "corpus": tiny_corpus, "steps": 6, "batch_size": 2,
            "crop_seconds": 0.5, "checkpoint_every": 2, "log_every": 1, "validate_every": 3,
            "mixed_precision": "no", "metrics": '["pesq"]',
        }  # fmt: skip
        return [*(x for k, v in settings.items() for x in (f"--{k}", v)), *TINY_MODEL]

    return make


def test_a_killed_training_ends_with_the_same_model(flags, tiny_codec_folder, tmp_path):
    run("vocode_mfcc.py", *flags("whole"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = launch("vocode_mfcc.py", *flags("cut"))
    kill_when(process, lambda: (cut / "checkpoints/step-2").is_dir())
    run("vocode_mfcc.py", *flags("cut"))
    a, b = (load_file(p / "model/model.safetensors") for p in (whole, cut))
    assert all(a[k].equal(b[k]) for k in a)
    lines = [(p / "history.jsonl").read_text().splitlines() for p in (whole, cut)]
    losses = [[json.loads(line)["loss"] for line in each] for each in lines]
    assert len(losses[0]) == 6 and losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert {"accuracy/level0", "validation/loss", "validation/accuracy"} <= set(
        json.loads(lines[0][-1])
    )
    rows = json.loads((whole / "metrics.json").read_text())["rows"]
    assert set(rows) == {"original", "resynthesis", "generated", "unconditional"}

    model = load_transformer(whole / "model")
    assert isinstance(model, DelayTransformer)
    heard, rate = read_audio(whole / "samples" / "000.original.wav")
    options = {"settings": SamplingSettings(), "seed": 0}
    made = generate(whole / "model", tiny_codec_folder, like=heard, **options)
    assert made.waveform.shape == heard.shape
    longer = generate(whole / "model", tiny_codec_folder, prompt=heard, seconds=0.2, **options)
    assert longer.waveform.shape[-1] == heard.shape[-1] + round(0.2 * rate)
    with pytest.raises(ValueError, match="only continues"):
        generate(model, tiny_codec_folder, infill=heard, start=0.2, end=0.4)
    assert "Autoregressive transformer" in (whole / "model/README.md").read_text()
    assert torch.isfinite(made.waveform).all()
