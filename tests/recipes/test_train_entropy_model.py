"""The recipe of entropy models: exact resume, and bits that get fewer."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from makers.recipes import kill_when, launch, run
from tokgen.modelling.causal import CausalTransformer
from tokgen.modelling.causal_depth import CausalDepthNetwork
from tokgen.modelling.integer_depth import IntegerDepthNetwork
from tokgen.tokens.dataset import load_tokens

DEPTH = (
    "{dim: 16, hidden: 16, dilations: [1, 2], code_dim: 8, level_hidden: 16, head_dim: 8, "
    "dropout: 0.1}"
)


@pytest.fixture
def flags(tiny_codec_folder, tiny_corpus, tmp_path):
    def make(name: str, **more: object) -> list[object]:
        settings = {
            "name": name, "runs": tmp_path, "codec": tiny_codec_folder, "corpus": tiny_corpus,
            "steps": 12, "batch_size": 4, "crop_seconds": 0.5, "checkpoint_every": 3, "warmup": 0,
            "log_every": 1, "validate_every": 6, "model": DEPTH, "level_dropout": 0.3, "ema": 0.5,
            **more,
        }  # fmt: skip
        return [x for k, v in settings.items() for x in (f"--{k}", v)]

    return make


def test_a_killed_training_ends_with_the_same_model(flags, tmp_path):
    run("train_entropy_model.py", *flags("whole"))
    process = launch("train_entropy_model.py", *flags("cut"))
    kill_when(process, lambda: (tmp_path / "cut/checkpoints/step-6").is_dir())
    out = run("train_entropy_model.py", *flags("cut"))
    assert "continuing at step" in out or process.returncode == 0

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for kind in ("model", "integer"):
        a, b = (load_file(p / kind / "model.safetensors") for p in (whole, cut))
        assert all(a[k].equal(b[k]) for k in a)
    lines = [(p / "history.jsonl").read_text().splitlines() for p in (whole, cut)]
    bits = [[json.loads(line)["bits"] for line in one] for one in lines]
    assert len(bits[0]) == 12 and bits[0] == pytest.approx(bits[1], rel=1e-6)
    assert bits[0][-1] < bits[0][0]
    assert "validation/bits/level0" in json.loads(lines[0][-1])

    metrics = json.loads((whole / "metrics.json").read_text())
    assert set(metrics["rows"]) == {
        "static table", "previous-frame table", "model", "model in integers"
    }  # fmt: skip
    row = metrics["rows"]["model in integers"]
    saved = 100 * (1 - row["bits_per_code"] / metrics["packed_bits"])
    assert row["saved_percent"]["mean"] == pytest.approx(saved)
    assert row["bits_per_code"] == pytest.approx(
        metrics["rows"]["model"]["bits_per_code"], abs=0.05
    )
    (tokens,) = (tmp_path / "tokens").iterdir()
    dataset = load_tokens(tokens)
    model = IntegerDepthNetwork.from_pretrained(whole / "integer")
    test = dataset.splits["test"]
    spent = [model.bits(dataset.codes("test", i)).double().sum().item() for i in range(len(test))]
    codes = sum(dataset.codes("test", i).numel() for i in range(len(test)))
    assert sum(spent) / codes == pytest.approx(row["bits_per_code"], rel=1e-6)
    card = (whole / "integer/README.md").read_text()
    assert "accelerate launch recipes/train_entropy_model.py" in card
    first = CausalDepthNetwork.from_pretrained(whole / "model")
    assert first.config["codec"]["name"] == "tiny"


def test_the_transformer_trains_on_a_token_dataset(flags, tmp_path):
    run("train_entropy_model.py", *flags("first", steps=1))
    (tokens,) = (tmp_path / "tokens").iterdir()
    more = {"kind": "transformer", "model": "{dim: 16, heads: 2, depth: 1}", "block_seconds": 0.3}
    out = run("train_entropy_model.py", *flags("paper", tokens=tokens, corpus="nowhere", **more))
    model = CausalTransformer.from_pretrained(tmp_path / "paper/model")
    rate = load_tokens(tokens).provenance.spec.frame_rate
    assert model.context == math.floor(3.5 * rate)
    assert "previous-frame table" in out and "models start anew after" in out
    assert "model in integers" not in out
    assert torch.isfinite(model.head.weight).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "{width: 3}"}, "unexpected keyword argument 'width'"),
        ({"kind": "gru"}, "kind"),
        ({"tokens": "nowhere"}, "no token dataset nowhere"),
        ({"level_dropout": 2}, "level_dropout"),
        ({"tokens": "x", "grids": 2}, "grids = 2 needs the audio: set corpus, not tokens"),
    ],
)
def test_wrong_settings_are_refused(more, message, flags):
    out = run("train_entropy_model.py", *flags("wrong", **more), code=1)
    assert message in out and "Traceback" not in out


def test_two_processes_train_on_the_batches_of_one(flags, tmp_path):
    more = {"steps": 2, "level_dropout": 1.0, "ema": 0.0, "crop_seconds": 0.3}
    run("train_entropy_model.py", *flags("one", **more, batch_size=4))
    run("train_entropy_model.py", *flags("two", **more, batch_size=2), processes=2)
    lines = [
        json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[0])
        for name in ("one", "two")
    ]
    assert lines[0].keys() == lines[1].keys()
    for key, value in lines[0].items():
        assert lines[1][key] == pytest.approx(value, rel=0.05)  # dropout differs
