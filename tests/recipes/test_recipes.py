"""Each recipe in a process of its own: a few steps, kills, resume, and its outputs."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
import torch
import yaml
from datasets import DatasetDict
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import train_entropy_model
import tts_masked
import vocode_mfcc
from makers.audio import make_tone
from makers.codecs import make_dac, make_encodec, make_variable, save_codec
from makers.recipes import ROOT, TINY_MODEL, kill_when, launch, run
from tokgen.audio.files import read_audio, write_audio
from tokgen.codec_training.ablation_settings import AblationSettings
from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.codec_training.offline_settings import OfflineSettings
from tokgen.codec_training.settings import CodecTrainingSettings, TuningSettings
from tokgen.codec_training.variable_ablation.settings import VariableAblationSettings
from tokgen.comparison.settings import ComparisonSettings
from tokgen.corpus.listed import open_corpus
from tokgen.generation.held_out import choose_held_out
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.runs.settings import parse_settings
from tokgen.tokens.cache import cached_tokens
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.lookup import load_codec

TINY_CODEC = {
    "n_fft": 640, "width": 24, "encoder_depth": 1, "decoder_depth": 1, "expansion": 2,
    "latent_dim": 16, "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
}  # fmt: skip
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


@pytest.fixture
def vocode_flags(tiny_codec_folder, tiny_corpus, tmp_path):
    def flags(name: str, **more: object) -> list[object]:
        settings = {
            "name": name, "runs": tmp_path, "codec": tiny_codec_folder, "corpus": tiny_corpus,
            "steps": 12, "batch_size": 2, "crop_seconds": 0.5, "checkpoint_every": 3,
            "log_every": 1, "validate_every": 6, "tracker": "none", "mixed_precision": "bf16",
            "sampling.steps": "[2,1]", "asr": "moonshine", "mos": "distillmos", **more,
        }  # fmt: skip
        return [*(x for k, v in settings.items() for x in (f"--{k}", v)), *TINY_MODEL]

    return flags


def test_vocode_mfcc_survives_kills_with_the_same_result(
    vocode_flags, tiny_codec_folder, tiny_corpus, tmp_path
):
    run("vocode_mfcc.py", *vocode_flags("whole"))
    whole = tmp_path / "whole"
    checkpoints = tmp_path / "cut" / "checkpoints"

    # SIGKILL in training, then Ctrl-C, then a run to the end.
    process = launch("vocode_mfcc.py", *vocode_flags("cut"))
    kill_when(process, lambda: (checkpoints / "step-3").is_dir())
    assert process.returncode == -signal.SIGKILL
    process = launch("vocode_mfcc.py", *vocode_flags("cut"))
    out = kill_when(process, lambda: (checkpoints / "step-6").is_dir(), signal.SIGINT)
    if process.returncode == 130:
        assert re.search(r"interrupted at step \d+: checkpoint written; run the same command", out)
    out = run("vocode_mfcc.py", *vocode_flags("cut"))
    assert "continuing at step" in out

    cut = tmp_path / "cut"
    lines = [(p / "history.jsonl").read_text().splitlines() for p in (whole, cut)]
    losses = [[json.loads(x)["loss"] for x in y] for y in lines]
    assert len(losses[0]) == 12 and losses[0] == pytest.approx(losses[1], rel=1e-6)
    a, b = (load_file(p / "model" / "model.safetensors") for p in (whole, cut))
    assert all(a[k].equal(b[k]) for k in a)
    first, second = (json.loads((p / "metrics.json").read_text())["rows"] for p in (whole, cut))
    assert first == second

    rows = ("original", "resynthesis", "generated", "unconditional")
    assert set(first) == set(rows)
    for row in rows:
        for metric in ("cer", "mos", "pesq"):
            keys = {"mean", "low", "high", "n", "n_failed", "backend"}
            assert set(first[row][metric]) == keys
    for name in ("curves.png", "spectrograms.png", "settings.json", "clips.json"):
        assert (whole / name).stat().st_size > 100
    assert len(list((whole / "samples").glob("000.*.wav"))) == 4
    codec = load_codec(tiny_codec_folder)
    model = MaskedTransformer.from_pretrained(whole / "model").eval()
    tokens = cached_tokens(open_corpus(tiny_corpus), codec, tmp_path / "tokens")
    held_out = choose_held_out(tokens, codec, str(tiny_corpus), n=9)
    again = held_out.generate(model, TaskSettings(), SamplingSettings(steps=(2, 1)), seed=0)
    for i, made in enumerate(again):  # the saved model generates the same
        heard, _ = read_audio(whole / "samples" / f"{i:03d}.generated.wav")
        torch.testing.assert_close(made.waveform, heard, atol=1e-4, rtol=0)
    settings = json.loads((whole / "settings.json").read_text())
    assert settings["codec"]["weight_hash"] and settings["versions"]["torch"]
    card = ModelCard.load(whole / "model" / "README.md")
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["pesq"] == pytest.approx(first["generated"]["pesq"]["mean"])
    assert "accelerate launch recipes/vocode_mfcc.py" in card.text
    assert tokens.provenance.corpus_fingerprint in card.text and "| `steps` | `12` |" in card.text


def test_vocode_mfcc_trains_on_a_variable_bitrate(vocode_flags, tiny_corpus, tmp_path):
    codec = f"{save_codec(make_variable(None), tmp_path / 'zoo' / 'vary')}:0.9"
    flags = vocode_flags("vary", codec=codec, metrics='["pesq"]')
    out = run("vocode_mfcc.py", *flags)
    assert "vary:0.9" in out
    lines = (tmp_path / "vary" / "history.jsonl").read_text().splitlines()
    logged = {name for line in lines for name in json.loads(line)}
    assert {"accuracy/depth", "accuracy/level0", "validation/accuracy"} <= logged
    model = MaskedTransformer.from_pretrained(tmp_path / "vary" / "model").eval()
    assert model.config["rate"] == {"bitrate": 0.9}
    loaded = load_codec(codec)
    tokens = cached_tokens(open_corpus(tiny_corpus), loaded, tmp_path / "tokens")
    held_out = choose_held_out(tokens, loaded, str(tiny_corpus), n=9)
    again = held_out.generate(model, TaskSettings(), SamplingSettings(steps=(2, 1)), seed=0)
    for i, made in enumerate(again):
        assert made.depth is not None
        heard, _ = read_audio(tmp_path / "vary" / "samples" / f"{i:03d}.generated.wav")
        torch.testing.assert_close(made.waveform, heard, atol=1e-4, rtol=0)


def test_vocode_mfcc_makes_a_test_split_of_a_small_folder(
    vocode_flags, tiny_codec_folder, tiny_corpus, tmp_path
):
    for i in range(4):
        write_audio(tmp_path / "few" / f"{i}.wav", make_tone(1.0, i), 16000)
    flags = vocode_flags("few run", metrics='["si_sdr"]', steps=2, corpus=tmp_path / "few")
    out = run("vocode_mfcc.py", *flags)
    assert "2 training utterances" in out
    found = json.loads((tmp_path / "few run" / "metrics.json").read_text())
    assert found["rows"]["resynthesis"]["si_sdr"]["n"] == 1
    # With another test corpus, two more clips would be trained on
    out = run("vocode_mfcc.py", *flags, "--test_corpus", tiny_corpus, code=1)
    assert "holds a run with made_test_split = True, not None" in out and "Traceback" not in out


def test_vocode_mfcc_trains_on_tokens_without_splits_or_audio(
    vocode_flags, tiny_codec_folder, tiny_corpus, tmp_path
):
    codec = load_codec(tiny_codec_folder)
    tokenize_corpus(tiny_corpus, codec, tmp_path / "made", workers=1, progress=False)
    rows = load_tokens(tmp_path / "made").splits["train"]
    DatasetDict(train=rows).save_to_disk(str(tmp_path / "one"))
    flags = vocode_flags("tokens", metrics='["si_sdr"]', steps=2)
    at = flags.index("--corpus")
    flags[at : at + 2] = ["--tokens", tmp_path / "one"]
    run("vocode_mfcc.py", *flags)
    folder = tmp_path / "tokens"
    found = json.loads((folder / "metrics.json").read_text())
    assert list(found["rows"]) == ["resynthesis", "generated", "unconditional"]
    settings = json.loads((folder / "settings.json").read_text())["settings"]
    assert settings["tokens"] == str(tmp_path / "one") and settings["corpus"] is None
    assert (folder / "model/model.safetensors").is_file()
    plain = tmp_path / "plain"
    tokenize_corpus(tiny_corpus, codec, plain, workers=1, progress=False, conditioning=None)
    flags[flags.index("--tokens") + 1] = plain
    flags[flags.index("--name") + 1] = "other"
    out = run("vocode_mfcc.py", *flags, code=1)
    assert "have no conditioning: tokenize with --conditioning mfcc" in out


def test_vocode_mfcc_refuses_other_settings_under_one_name(vocode_flags, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "settings.json").write_text('{"settings": {"steps": 99}}')
    out = run("vocode_mfcc.py", *vocode_flags("x"), code=1)
    assert "holds a run with" in out and "Traceback" not in out


def test_vocode_mfcc_refuses_an_empty_test_set_before_training(vocode_flags):
    out = run("vocode_mfcc.py", *vocode_flags("y", min_test_seconds=99), code=1)
    assert "no test utterance" in out and "Traceback" not in out and "training: " not in out


def codec_flags(name: str, tmp_path: Path, corpus: Path) -> list[object]:
    config = {
        "name": name, "runs": str(tmp_path), "corpora": [str(corpus)], "model": TINY_CODEC,
        "discriminator": {"periods": [2], "period_channels": [4, 4], "windows": [256],
                          "channels": 2},
        "steps": 10, "continuous_steps": 3, "decoder_steps": 2, "adversarial_start": 6,
        "adversarial_warmup": 1, "batch_size": 2, "seconds": 0.5, "validate_every": 5,
        "checkpoint_every": 2, "validation_min_seconds": 0.0, "quantizer_init_seconds": 8,
        "tracker": "none", "mixed_precision": "no", "warmup": 2, "adversarial_seconds": 0.25,
        "ema": 0.9,
    }  # fmt: skip
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", path]


def test_train_codec_runs_all_phases_and_resumes_exactly(tiny_corpus, tmp_path):
    run("train_codec.py", *codec_flags("whole", tmp_path, tiny_corpus))
    process = launch("train_codec.py", *codec_flags("cut", tmp_path, tiny_corpus))
    kill_when(process, lambda: (tmp_path / "cut/checkpoints/step-4").is_dir())
    out = run("train_codec.py", *codec_flags("cut", tmp_path, tiny_corpus))
    assert "continuing at step" in out or process.returncode == 0
    a, b = (load_file(tmp_path / n / "codec/model.safetensors") for n in ("whole", "cut"))
    assert all(a[k].equal(b[k]) for k in a)
    card = (tmp_path / "whole/codec/README.md").read_text()
    assert "accelerate launch recipes/train_codec.py" in card and tiny_corpus.name in card
    metrics = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert [h["step"] for h in metrics["history"]] == [5, 10]
    assert len(metrics["final"]["codebook_use"]) == 2
    assert (tmp_path / "whole/discriminator/model.safetensors").is_file()

    assert load_codec(tmp_path / "whole/codec").spec.n_codebooks == 2


def test_train_codec_trains_a_dac_and_resumes_exactly(tiny_corpus, tmp_path):
    dac = {
        "encoder_hidden_size": 8, "decoder_hidden_size": 16, "hidden_size": 16,
        "downsampling_ratios": [4, 8], "upsampling_ratios": [8, 4], "n_codebooks": 2,
        "codebook_size": 32, "codebook_dim": 4, "sampling_rate": 8000,
    }  # fmt: skip

    def flags(name: str) -> list[object]:
        (_, path) = codec_flags(name, tmp_path, tiny_corpus)
        config = yaml.safe_load(path.read_text()) | {"architecture": "dac", "model": dac}
        config |= {"continuous_steps": 0, "decoder_steps": 0, "steps": 6, "adversarial_start": 2}
        path.write_text(yaml.safe_dump(config))
        return ["--config", path]

    run("train_codec.py", *flags("whole"))
    process = launch("train_codec.py", *flags("cut"))
    kill_when(process, lambda: (tmp_path / "cut/checkpoints/step-2").is_dir())
    out = run("train_codec.py", *flags("cut"))
    assert "continuing at step" in out or process.returncode == 0
    a, b = (load_file(tmp_path / n / "codec/model.safetensors") for n in ("whole", "cut"))
    assert list(a) == list(b) and all(a[k].equal(b[k]) for k in a)
    assert not any("parametrizations" in name for name in a)  # weight norm is folded
    assert load_codec(tmp_path / "whole/codec").spec.hop_length == 32


def test_train_codec_stops_when_the_quantizer_diverges(tiny_corpus, tmp_path):
    flags = codec_flags("bad", tmp_path, tiny_corpus)
    out = run("train_codec.py", *flags, "--max_codebook_loss", "1e-9", code=1)
    assert "codebook loss" in out and "over the limit of 1e-09" in out and "Traceback" not in out


def tune_flags(name: str, runs: Path, codec: Path, corpus: Path, **more: object) -> list[object]:
    config = {
        "name": name, "runs": str(runs), "codec": str(codec), "corpora": [str(corpus)],
        "discriminator": {"periods": [], "windows": [256], "channels": 2},
        "discriminator_warmup": 3, "steps": 9, "sweep_steps": 4, "sweep": [1, 2, 1e9],
        "sweep_tolerance": 0.5, "passes": 2, "later_weight": 0.5, "drifted_passes": 1, "warmup": 2,
        "later_target": "first", "hold_first": True,
        "batch_size": 2, "seconds": 0.5, "learning_rate": 0.02, "validation_passes": 2,
        "validation_min_seconds": 0.0, "validate_every": 6, "checkpoint_every": 2, "ema": 0.5,
        "adversarial_seconds": 0.25, "tracker": "none", "mixed_precision": "no", **more,
    }  # fmt: skip
    path = runs / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", path]


def test_tune_idempotence_sweeps_tunes_and_resumes_exactly(
    tiny_codec_folder, tiny_corpus, tmp_path
):
    def flags(name: str) -> list[object]:
        return tune_flags(name, tmp_path, tiny_codec_folder, tiny_corpus)

    out = run("tune_idempotence.py", *flags("whole"))
    sweep = json.loads((tmp_path / "whole/sweep.json").read_text())
    limit = 1.5 * sweep["untuned"]["loss"]
    holding = [w for w in ("1", "2", "1e+09") if sweep[w]["loss"] <= limit]
    assert holding, sweep
    assert f"using weight {holding[-1]}\n" in out
    card = ModelCard.load(tmp_path / "whole/codec/README.md")
    assert card.data.license == "cc0-1.0" and "| started from | `" in card.text
    metrics = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert f"{metrics['weight']:g}" == holding[-1]
    assert [h["step"] for h in metrics["history"]] == [
        6,
        12,
    ]  # 3 without the codec

    cut = tmp_path / "cut"
    for ready in (
        lambda: (
            '"1"' in ((cut / "sweep.json").read_text() if (cut / "sweep.json").exists() else "")
        ),
        lambda: (cut / "sweep/2/checkpoints/step-2").is_dir(),
        lambda: (cut / "checkpoints/step-4").is_dir(),
    ):  # between two trials, in one, and in the last
        process = launch("tune_idempotence.py", *flags("cut"))
        kill_when(process, ready)
        assert process.returncode == -signal.SIGKILL
    assert "continuing at step" in run("tune_idempotence.py", *flags("cut"))
    a, b = (load_file(tmp_path / n / "codec/model.safetensors") for n in ("whole", "cut"))
    assert all(a[k].equal(b[k]) for k in a)
    assert json.loads((tmp_path / "cut/sweep.json").read_text()) == sweep

    settings = json.loads((cut / "settings.json").read_text())
    settings["codec"]["weight_hash"] = "of another base"
    (cut / "settings.json").write_text(json.dumps(settings))
    assert "of another base" in run("tune_idempotence.py", *flags("cut"), code=1)

    base = load_file(tiny_codec_folder / "model.safetensors")
    moved = {k for k in base if not base[k].half().equal(a[k])}
    assert {k.split(".")[0] for k in moved} == {"encoder", "decoder"}
    assert (tmp_path / "whole/discriminator/model.safetensors").is_file()


def test_tune_idempotence_starts_from_a_saved_discriminator(
    tiny_codec_folder, tiny_corpus, tmp_path
):
    saved = tmp_path / "saved"
    Discriminator(periods=[], windows=[256], channels=2).save_pretrained(saved)
    more = {"start_discriminator": str(saved), "weight": 1.0, "steps": 2, "loss": "enc"}
    flags = tune_flags("kept", tmp_path, tiny_codec_folder, tiny_corpus, **more)
    run("tune_idempotence.py", *flags)
    history = json.loads((tmp_path / "kept/metrics.json").read_text())["history"]
    assert [h["step"] for h in history] == [2]  # no step of the discriminator alone


@pytest.mark.parametrize(
    ("make", "name", "loss"),
    [(make_dac, "dac-odd", "proj"), (make_encodec, "encodec-24k", "code")],
)
def test_tune_idempotence_tunes_any_codec_with_open_stages(make, name, loss, tiny_corpus, tmp_path):
    base = make(name)
    base.save_pretrained(tmp_path / "base")
    more = {"weight": 1.0, "steps": 2, "loss": loss, "discriminator_warmup": 1}
    run("tune_idempotence.py", *tune_flags("t", tmp_path, tmp_path / "base", tiny_corpus, **more))
    tuned = load_codec(tmp_path / "t/codec")
    before, after = base.model.state_dict(), tuned.model.state_dict()
    moved = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
    assert moved == {"encoder", "decoder"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"loss": "latent"}, "loss 'latent': known are enc, proj, code"),
        ({"steps": 0}, "steps is 0, but must be at least 1"),
        ({"later_target": "last"}, "later_target 'last': known are 'original' and 'first'"),
        ({"sweep_tolerance": -0.9}, "no weight of [1.0, 2.0, 1000000000.0] holds"),
        ({"start_discriminator": "nowhere"}, "start_discriminator = 'nowhere'"),
        ({"codec": "nowhere"}, "no codec 'nowhere'"),
    ],
)
def test_tune_idempotence_refuses_wrong_settings(
    more, message, tiny_codec_folder, tiny_corpus, tmp_path
):
    codec = more.pop("codec", tiny_codec_folder)
    flags = tune_flags("wrong", tmp_path, codec, tiny_corpus, **more)
    out = run("tune_idempotence.py", *flags, code=1)
    assert message in out and "Traceback" not in out


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_configs_parse_and_their_codecs_add_up(path):
    settings = parse_settings(SETTINGS[path.name.split(".")[0]], path, [])
    if isinstance(settings, CodecTrainingSettings) and settings.architecture == "dac":
        strides = settings.model["downsampling_ratios"]
        assert not any(s % 2 for s in strides)
        assert strides == settings.model["upsampling_ratios"][::-1]
