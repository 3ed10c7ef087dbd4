"""The recipe that speaks text: resume to the same weights, and its outputs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from makers.recipes import TINY_MODEL, kill_when, launch, run
from tokgen.audio.files import read_audio
from tokgen.generation.settings import SamplingSettings
from tokgen.generation.speech import Speaker
from tokgen.zoo.lookup import load_codec

TINY_TEXT = ["--text.size.dim", "16", "--text.size.encoder_depth", "1",
             "--text.size.decoder_depth", "1", "--text.steps", "6", "--text.batch_size", "2",
             "--text.checkpoint_every", "2", "--text.log_every", "1",
             "--text.validate_every", "3"]  # fmt: skip


@pytest.fixture
def flags(tiny_codec_folder, tiny_corpus, tmp_path):
    def make(name: str, **more: object) -> list[object]:
        settings = {
            "name": name, "runs": tmp_path, "codec": tiny_codec_folder, "corpus": tiny_corpus,
            "steps": 4, "batch_size": 2, "crop_seconds": 0.5, "checkpoint_every": 2,
            "log_every": 1, "validate_every": 2, "mixed_precision": "no",
            "sampling.steps": "[2,1]", "asr": "moonshine", "metrics": '["cer"]', **more,
        }  # fmt: skip
        return [*(x for k, v in settings.items() for x in (f"--{k}", v)), *TINY_MODEL, *TINY_TEXT]

    return make


def test_a_killed_run_ends_with_the_same_models(flags, tiny_codec_folder, tmp_path):
    run("tts_masked.py", *flags("whole"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # The other run trains on the same tokens as an existing dataset.
    [tokens] = [path.parent for path in (tmp_path / "tokens").glob("*/dataset_dict.json")]
    process = launch("tts_masked.py", *flags("cut", tokens=tokens))
    kill_when(process, lambda: (cut / "text/checkpoints/step-4").is_dir())
    process = launch("tts_masked.py", *flags("cut", tokens=tokens))
    kill_when(process, lambda: (cut / "checkpoints/step-2").is_dir())
    out = run("tts_masked.py", *flags("cut", tokens=tokens))
    assert "continuing at step" in out
    saved = json.loads((cut / "settings.json").read_text())["settings"]
    assert saved["tokens"] == str(tokens)

    for part in ("model", "model/text"):
        a, b = (load_file(p / part / "model.safetensors") for p in (whole, cut))
        assert all(a[k].equal(b[k]) for k in a)
    lines = (whole / "text/history.jsonl").read_text().splitlines()
    assert {"alignment", "durations", "features", "validation/loss"} <= set(json.loads(lines[-1]))
    rows = json.loads((whole / "metrics.json").read_text())["rows"]
    assert set(rows) == {"original", "resynthesis", "generated"}
    assert set(rows["generated"]["cer"]) == {"mean", "low", "high", "n", "n_failed", "backend"}

    codec = load_codec(tiny_codec_folder)
    speaker = Speaker.from_pretrained(whole / "model")
    text = json.loads((whole / "clips.json").read_text())[0]["text"]
    sampling = SamplingSettings(steps=(2, 1))
    [made] = speaker.speak(codec, [text], sampling, seed=0, item_ids=[0])
    heard, _ = read_audio(whole / "samples" / "000.generated.wav")
    torch.testing.assert_close(made.waveform, heard, atol=1e-4, rtol=0)
    card = (whole / "model/README.md").read_text()
    assert "accelerate launch recipes/tts_masked.py" in card and "speak" in card
