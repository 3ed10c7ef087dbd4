"""Tests of `train`: one call that trains, continues and loads a model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file

from makers.codecs import make_stft_codec
from makers.recipes import ROOT, run
from tokgen.codec.base import Codec
from tokgen.corpus.listed import open_corpus
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.settings import ModelSettings
from tokgen.runs.interrupts import Interrupted
from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.training.loop import Training
from tokgen.training.settings import TrainingSettings
from tokgen.training.train import train

TINY = ModelSettings(dim=32, depth=1, heads=2)
FEW = {
    "preset": TINY, "steps": 6, "batch_size": 2, "crop_seconds": 0.5, "mixed_precision": "no",
    "checkpoint_every": 2, "log_every": 1, "validate_every": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_corpus, tiny_codec, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tokens") / "tokens"
    tokenize_corpus(open_corpus(str(tiny_corpus)), tiny_codec, out, progress=False)
    return out


@pytest.fixture(scope="module")
def tokens(folder) -> TokenDataset:
    return load_tokens(folder)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training get Ctrl-C at a step."""
    descend = Training.descend

    def interrupted(self, loss):
        if self.step == step:
            signal.raise_signal(signal.SIGINT)
        descend(self, loss)

    monkeypatch.setattr(Training, "descend", interrupted)


def test_a_training_that_was_interrupted_ends_with_the_same_model(
    tokens, folder, tiny_codec, tiny_codec_folder, tmp_path, monkeypatch
) -> None:
    model = train(tokens, tiny_codec, tmp_path / "whole", **FEW)
    assert isinstance(model, MaskedTransformer) and not model.training
    loaded = MaskedTransformer.from_pretrained(tmp_path / "whole" / "model")
    state = loaded.state_dict()
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    card = (tmp_path / "whole" / "model" / "README.md").read_text()
    assert (
        f"tokgen.train(tokens, codec, {str(tmp_path / 'whole')!r}, preset=preset, steps=6" in card
    )
    assert "| `model.dim` | `32` |" in card and "| `crop_seconds` | `0.5` |" in card
    assert tokens.provenance.corpus in card and "tracker" not in card

    cut = tmp_path / "cut"
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        with pytest.raises(Interrupted, match="repeat the call to continue"):
            train(str(folder), tiny_codec_folder, str(cut), **FEW)
    assert not (cut / "model").exists() and (cut / "checkpoints" / "step-3").is_dir()
    train(str(folder), tiny_codec_folder, str(cut), **FEW)
    a, b = weights(tmp_path / "whole"), weights(cut)
    assert all(a[name].equal(b[name]) for name in a)
    history = [json.loads(line) for line in (cut / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [1, 2, 3, 4, 5, 6]
    assert "validation/loss" in history[-1]
    for name in ("settings.json", "training.json", "curves.png"):
        assert (cut / name).is_file()


def test_a_finished_run_is_not_trained_again(tokens, tiny_codec, tmp_path, monkeypatch) -> None:
    first = train(tokens, tiny_codec, tmp_path / "run", **FEW)
    stop_at(0, monkeypatch)  # not reached
    again = train(tokens, tiny_codec, tmp_path / "run", **FEW)
    state = again.state_dict()
    assert all(value.equal(state[name]) for name, value in first.state_dict().items())


def test_trainings_of_one_process_may_differ_in_precision(tokens, tiny_codec, tmp_path) -> None:
    for name in ("no", "bf16", "no"):
        more = {**FEW, "steps": 1, "mixed_precision": name}
        train(tokens, tiny_codec, tmp_path / name, **more)
        saved = json.loads((tmp_path / name / "training.json").read_text())
        assert saved["precision"] == name


def test_processes_that_a_launcher_starts_share_the_work(folder, tiny_codec_folder, tmp_path):
    script = tmp_path / "script.py"
    more = {k: v for k, v in FEW.items() if k != "preset"}
    script.write_text(
        "import tokgen\n"
        "size = tokgen.ModelSettings(dim=32, depth=1, heads=2)\n"
        f"model = tokgen.train({str(folder)!r}, {str(tiny_codec_folder)!r}, "
        f"{str(tmp_path / 'two')!r}, preset=size, **{more!r})\n"
        "assert not model.training\n"
    )
    run(script, processes=2)
    speed = json.loads((tmp_path / "two" / "training.json").read_text())
    assert speed["processes"] == 2 and speed["steps"] == 6


def test_the_codec_that_the_tokens_name(tokens, tiny_codec_folder, tmp_path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match="codec 'tiny' is not in the zoo: pass its folder"):
        train(tokens, None, tmp_path / "run", **FEW)
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    model = train(tokens, None, tmp_path / "run", **FEW)
    assert model.config["codec"]["name"] == "tiny"


def test_other_settings_and_other_folders_are_refused(tokens, tiny_codec, tmp_path) -> None:
    run = tmp_path / "run"
    train(tokens, tiny_codec, run, **FEW)
    with pytest.raises(ValueError, match="holds a run with steps = 6, not 7"):
        train(tokens, tiny_codec, run, **{**FEW, "steps": 7})
    with pytest.raises(ValueError, match=r"model.dim = 32, not 64"):
        train(tokens, tiny_codec, run, **{**FEW, "preset": ModelSettings(dim=64, depth=1, heads=2)})
    train(tokens, tiny_codec, run, **{**FEW, "checkpoint_every": 5})
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="mine exists and is not a run's folder"):
        train(tokens, tiny_codec, mine, **FEW)


HOLD = """
import sys
from tokgen.runs.locks import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_in_use_is_refused(tokens, tiny_codec, tmp_path) -> None:
    command = [sys.executable, "-c", HOLD, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"in use by process {other.pid} on "):
            train(tokens, tiny_codec, tmp_path, **FEW)
        other.communicate("")
    train(tokens, tiny_codec, tmp_path, **{**FEW, "steps": 1})


def test_a_deleted_run_ends_in_one_line(tokens, tiny_codec, tmp_path, monkeypatch) -> None:
    run, descend = tmp_path / "run", Training.descend

    def delete(self, loss):
        descend(self, loss)
        if self.step == 3:
            shutil.rmtree(run)

    monkeypatch.setattr(Training, "descend", delete)
    message = "run was deleted while it was in use: run the same command again to start over$"
    with pytest.raises(FileNotFoundError, match=message):
        train(tokens, tiny_codec, run, **FEW)
    assert not run.exists()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"settings": TrainingSettings()}, TypeError, "pass its fields by name"),
        ({"step": 3}, TypeError, "no setting 'step' .did you mean steps"),
        ({"colour": 3}, TypeError, "no setting 'colour'; known are steps, batch_size"),
        ({"steps": 0}, ValueError, "steps is 0, but must be at least 1"),
        ({"preset": "huge"}, ValueError, "preset 'huge': known are small, paper"),
    ],
)
def test_wrong_settings_are_refused(more, error, message, tokens, tiny_codec, tmp_path) -> None:
    with pytest.raises(error, match=message):
        train(tokens, tiny_codec, tmp_path / "run", **{**FEW, **more})
    assert not (tmp_path / "run").exists()


def test_wrong_tokens_are_refused(tokens, tiny_codec, tmp_path) -> None:
    other = make_stft_codec(1, "other")
    with pytest.raises(ValueError, match=r"made by codec 'tiny' .* not by 'other'"):
        train(tokens, other, tmp_path / "a", **FEW)
    with pytest.raises(FileNotFoundError, match="no token dataset"):
        train(tmp_path / "nowhere", tiny_codec, tmp_path / "b", **FEW)
    test_only = DatasetDict(test=tokens.splits["test"])
    with pytest.raises(ValueError, match=r"no train split, only \['test'\]"):
        train(TokenDataset(test_only, tokens.provenance), tiny_codec, tmp_path / "c", **FEW)


@pytest.mark.parametrize("more", [{}, {"packing": True}, {"crop_seconds_min": 0.1}], ids=str)
def test_one_short_clip_is_enough(more, tokens, tiny_codec: Codec, tmp_path) -> None:
    one = DatasetDict(train=tokens.splits["train"].select([1]))
    model = train(TokenDataset(one, tokens.provenance), tiny_codec, tmp_path, **{**FEW, **more})
    assert all(p.isfinite().all() for p in model.parameters())


def test_fewer_levels_than_the_codec_has(tiny_corpus, tiny_codec, tmp_path) -> None:
    corpus = open_corpus(str(tiny_corpus))
    out = tmp_path / "tokens"
    tokenize_corpus(corpus, tiny_codec, out, n_codebooks=2, conditioning=None, progress=False)
    model = train(out, tiny_codec, tmp_path / "run", **FEW)
    assert model.n_codebooks == 2 and model.conditioning_dim == 0
