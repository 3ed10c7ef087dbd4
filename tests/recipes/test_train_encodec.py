"""train_codec.py with EnCodec's losses: resume, several processes, logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from makers.audio import make_tone
from makers.recipes import kill_when, launch, run
from tokgen.audio.files import read_audio, write_audio
from tokgen.zoo.lookup import load_codec

TINY_CODEC = {
    "n_fft": 640, "width": 24, "encoder_depth": 1, "decoder_depth": 1, "expansion": 2,
    "latent_dim": 16, "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
}  # fmt: skip
ENCODEC = {
    "architecture": "encodec", "decoder_steps": 2, "ema": 0.9,
    "model": {
        "sampling_rate": 16000, "num_filters": 2, "hidden_size": 8, "codebook_size": 16,
        "upsampling_ratios": [8, 5, 4, 2], "num_lstm_layers": 1, "target_bandwidths": [0.4, 0.8],
    },
}  # fmt: skip
STEREO = {
    **ENCODEC, "seconds": 0.26, "decoder_steps": 0, "adversarial_start": 0,
    "adversarial_warmup": 0, "steps": 8, "discriminator_share": 0.7,
    "model": {
        **ENCODEC["model"], "audio_channels": 2, "normalize": True, "chunk_length_s": 0.26,
        "overlap": 0.01, "norm_type": "time_group_norm", "use_causal_conv": False,
    },
    "discriminator": {
        "kind": "msstft", "windows": [256, 128], "width": 2, "channels": 2, "bandwidths": 2,
    },
}  # fmt: skip
LOSSES = {
    "balancer": True, "adversarial_loss": "hinge2", "feature_loss": "relative",
    "mel_loss": "power", "discriminator_share": 0.5, "betas": [0.5, 0.9], "weight_decay": 0.0,
    "discriminator": {"kind": "msstft", "windows": [256, 128], "width": 2},
    "weights": {"time": 0.1, "mel": 1.0, "feature": 3.0, "adversarial": 3.0, "commitment": 1.0},
}  # fmt: skip


def flags(name: str, folder: Path, corpus: Path, **more: object) -> list[object]:
    config = {
        "name": name, "runs": str(folder), "corpora": [str(corpus)], "model": TINY_CODEC,
        "steps": 6, "adversarial_start": 1, "adversarial_warmup": 1, "batch_size": 2,
        "seconds": 0.25, "validate_every": 3, "checkpoint_every": 2,
        "validation_min_seconds": 0.0, "tracker": "none", "mixed_precision": "no", **LOSSES, **more,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", path]


def weights(run_folder: Path) -> dict:
    return load_file(run_folder / "codec/model.safetensors")


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(a[k].equal(b[k]) for k in a)


def test_encodec_trains_and_resumes_exactly(tiny_corpus, tmp_path):
    run("train_codec.py", *flags("whole", tmp_path, tiny_corpus, **ENCODEC))
    process = launch("train_codec.py", *flags("cut", tmp_path, tiny_corpus, **ENCODEC))
    kill_when(process, lambda: (tmp_path / "cut/checkpoints/step-2").is_dir())
    run("train_codec.py", *flags("cut", tmp_path, tiny_corpus, **ENCODEC))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    codec = load_codec(tmp_path / "whole/codec")
    assert (codec.spec.n_codebooks, codec.spec.hop_length) == (4, 320)
    assert codec.model.quantizer.layers[3].codebook.embed.any()


@pytest.fixture(scope="session")
def stereo_corpus(tmp_path_factory) -> Path:
    """Stereo clips, and mono ones."""
    folder = tmp_path_factory.mktemp("stereo")
    for seed in range(6):
        split = "train" if seed < 4 else "validation"
        both = torch.cat([make_tone(1.0, seed), 0.5 * make_tone(1.0, seed + 9)])
        write_audio(folder / f"{split}/{seed}.wav", both[: 1 + (seed > 0)], 16000)
    return folder


def test_the_stereo_encodec_resumes_exactly_with_a_discriminator_per_bandwidth(
    stereo_corpus, tmp_path
):
    run("train_codec.py", *flags("whole", tmp_path, stereo_corpus, **STEREO))
    process = launch("train_codec.py", *flags("cut", tmp_path, stereo_corpus, **STEREO))
    kill_when(process, lambda: (tmp_path / "cut/checkpoints/step-4").is_dir())
    run("train_codec.py", *flags("cut", tmp_path, stereo_corpus, **STEREO))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    critics = [
        load_file(tmp_path / n / "discriminator/model.safetensors") for n in ("whole", "cut")
    ]
    assert same(*critics) and {name.split(".")[1] for name in critics[0]} == set("0123")
    codec = load_codec(tmp_path / "whole/codec")
    assert codec.spec.channels == 2 and codec.side_names == ("scales",)
    decoded = sorted((tmp_path / "whole/samples").glob("*.decoded.wav"))
    assert [read_audio(path, channels=2)[0].shape[0] for path in decoded] == [2, 2]


def test_processes_train_a_discriminator_per_bandwidth(stereo_corpus, tmp_path):
    """Every process judges with the same one; the others have no gradient."""
    more = STEREO | {"steps": 4, "validate_every": 4, "discriminator_share": 1.0}
    out = run("train_codec.py", *flags("two", tmp_path, stereo_corpus, **more), processes=2)
    assert "codec: " in out


def test_a_mono_discriminator_is_refused_for_a_stereo_codec(stereo_corpus, tmp_path):
    more = STEREO | {"discriminator": {"kind": "msstft", "windows": [256], "width": 2}}
    out = run("train_codec.py", *flags("mono", tmp_path, stereo_corpus, **more), code=1)
    assert "judges audio of 1 channels, but the codec has 2: set discriminator to" in out
    assert "Traceback" not in out


def test_processes_move_the_same_codebooks(tiny_corpus, tmp_path):
    settings = {**ENCODEC, "steps": 4, "validate_every": 4}
    counts = []
    for processes in (1, 2):
        name = str(processes)
        run("train_codec.py", *flags(name, tmp_path, tiny_corpus, **settings), processes=processes)
        quantizer = load_codec(tmp_path / name / "codec").model.quantizer
        counts.append(float(quantizer.layers[0].codebook.cluster_size.sum()))
    assert counts[1] > 1.5 * counts[0]  # the latents of both processes are counted


def test_the_balancer_resumes_exactly_and_logs_its_shares(tiny_corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run("train_codec.py", *flags("whole", tmp_path, tiny_corpus, tracker="tensorboard"))
    process = launch("train_codec.py", *flags("cut", tmp_path, tiny_corpus))
    kill_when(process, lambda: (tmp_path / "cut/checkpoints/step-4").is_dir())
    run("train_codec.py", *flags("cut", tmp_path, tiny_corpus))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    extra = [json.loads((tmp_path / n / "checkpoints/step-6/extra.json").read_text())
             for n in ("whole", "cut")]  # fmt: skip
    assert extra[0]["balancer"] == extra[1]["balancer"]
    assert set(extra[0]["balancer"]["sums"]) == {"time", "mel", "feature", "adversarial"}
    shares = json.loads((tmp_path / "whole/metrics.json").read_text())["final"]["shares"]
    assert shares["feature"][1] == pytest.approx(3 / 7.1, abs=1e-4)
    assert sum(found for found, _ in shares.values()) == pytest.approx(1, abs=1e-3)
    events = EventAccumulator(str(tmp_path / "whole/logs")).Reload()
    for name, (share, wanted) in shares.items():
        assert events.Scalars(f"share/{name}")[-1].value == pytest.approx(share, abs=1e-4)
        assert events.Scalars(f"weight/{name}")[-1].value == pytest.approx(wanted, abs=1e-4)
    config = json.loads((tmp_path / "whole/discriminator/config.json").read_text())
    assert config["model_type"] == "tokgen_msstft_discriminator"


def test_processes_share_the_averages_of_the_balancer(tiny_corpus, tmp_path):
    """Two processes have in step 1 the audio that one has in steps 1 and 2, and the mean norms."""
    more = {
        "adversarial_start": 9, "learning_rate": 1e-30, "joint_learning_rate": 1e-30,
        "weight_decay": 0.0, "checkpoint_every": 1, "model": {**TINY_CODEC, "quantizer_dropout": 0},
    }  # fmt: skip
    run("train_codec.py", *flags("one", tmp_path, tiny_corpus, steps=2, **more))
    run("train_codec.py", *flags("two", tmp_path, tiny_corpus, steps=1, **more), processes=2)

    def sums(step: str) -> dict:
        state = json.loads((tmp_path / step / "extra.json").read_text())["balancer"]
        return state["sums"]

    first, both = sums("one/checkpoints/step-1"), sums("one/checkpoints/step-2")
    found = sums("two/checkpoints/step-1")
    assert set(found) == {"time", "mel"}
    second = {name: both[name] - 0.999 * first[name] for name in found}
    for name, norm in found.items():
        assert norm == pytest.approx((first[name] + second[name]) / 2, rel=1e-3)
    assert abs(second["mel"] / first["mel"] - 1) > 0.02  # the processes' own norms differ


def test_a_training_that_diverges_stops(tiny_corpus, tmp_path):
    """EnCodec has no codebook loss that would tell."""
    more = {"learning_rate": 1e30, "joint_learning_rate": 1e30, "steps": 2, "decoder_steps": 0}
    settings = {**ENCODEC, **more, "balancer": False, "adversarial_start": 9}
    out = run("train_codec.py", *flags("nan", tmp_path, tiny_corpus, **settings), code=1)
    assert "stopped at step 2: mel is nan, but must be finite" in out
    assert not (tmp_path / "nan/checkpoints/step-2").exists()


def test_kinds_of_discriminators_are_flags(tiny_corpus, tmp_path):
    more = ["--discriminator", "msstft", "--balancer", "true", "--seconds", "0.1"]
    out = run("train_codec.py", *flags("short", tmp_path, tiny_corpus), *more, code=1)
    assert "judge 1600 samples, but their longest window has 2048: raise seconds" in out
    assert "Traceback" not in out
