"""Training of codecs with a variable bitrate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from makers.audio import make_tone
from makers.recipes import ROOT, kill_when, launch, run
from tokgen.codec.depth import depth_of
from tokgen.codec_training.architectures import load_into, make_trainable
from tokgen.codec_training.settings import CodecTrainingSettings
from tokgen.codec_training.validation import validate
from tokgen.corpus.listed import open_corpus
from tokgen.quantizers.settings import VariableSettings
from tokgen.runs.settings import parse_settings
from tokgen.zoo.lookup import load_codec

STFT = {
    "n_fft": 640, "width": 24, "encoder_depth": 1, "decoder_depth": 1, "expansion": 2,
    "latent_dim": 16, "n_codebooks": 4, "codebook_size": 32, "codebook_dim": 4,
}  # fmt: skip
VARIABLE = VariableSettings(widths=(8, 4))
DAC = {
    "encoder_hidden_size": 8, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4],
    "upsampling_ratios": [4, 2], "n_codebooks": 4, "codebook_size": 32, "codebook_dim": 4,
    "hidden_size": 32, "sampling_rate": 16000,
}  # fmt: skip
ENCODEC = {
    "sampling_rate": 16000, "upsampling_ratios": [8, 4, 2], "num_filters": 4, "hidden_size": 8,
    "num_lstm_layers": 1, "codebook_size": 32, "target_bandwidths": [2.5, 5.0],
}  # fmt: skip
ENCODEC_48K = ENCODEC | {
    "audio_channels": 2, "normalize": True, "chunk_length_s": 0.5, "overlap": 0.01,
    "norm_type": "time_group_norm", "use_causal_conv": False,
}  # fmt: skip
ARCHITECTURES = [("stft", STFT), ("dac", DAC), ("encodec", ENCODEC)]


def audio() -> torch.Tensor:
    """Clips [4, 1, N] whose second half is silent."""
    clips = torch.stack([make_tone(0.5, seed) for seed in range(4)])
    clips[..., clips.shape[-1] // 2 :] = 0
    return clips


@pytest.mark.parametrize(("name", "config"), ARCHITECTURES)
def test_a_codec_trains_and_is_saved_with_its_importance_network(name, config, tmp_path):
    torch.manual_seed(0)
    codec = make_trainable(name, config, VARIABLE)
    clips = audio()
    codec.fit_statistics(clips)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=3e-3)
    losses, rates = [], []
    for _ in range(30):
        out = codec(clips)
        assert out.waveform.shape == clips.shape and out.rate_loss is not None
        distance = 10 * (out.waveform - clips).abs().mean()
        loss = distance + 0.25 * out.commitment_loss + out.codebook_loss + 5 * out.rate_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        rates.append(out.rate_loss.item())
    assert losses[-1] < 0.9 * losses[0] and rates[-1] < rates[0]
    codec.eval()
    assert codec(clips).rate_loss is None  # all levels
    codec.save(tmp_path)
    again = make_trainable(name, config, VARIABLE).eval()
    load_into(again, tmp_path)
    ours, theirs = (c.model.encode_with_importance(clips)[1] for c in (codec, again))
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-2)  # half precision
    assert load_codec(tmp_path).encode(clips[:1]).shape[1] == 4


@pytest.mark.parametrize(("name", "config"), ARCHITECTURES)
def test_it_starts_from_a_codec_without_one(name, config, tmp_path):
    torch.manual_seed(0)
    plain = make_trainable(name, config).eval()
    plain.save(tmp_path)
    codec = make_trainable(name, config, VARIABLE).eval()
    load_into(codec, tmp_path)
    clips = audio()
    saved = load_codec(tmp_path)
    assert codec.as_codec().encode(clips[:1]).equal(saved.encode(clips[:1]))
    assert codec.model.encode_with_importance(clips)[1].sub(0.5).abs().max() < 0.2
    frozen = {id(w) for w in codec.encoder_parameters()}
    assert {id(w) for w in codec.model.importance.parameters()} <= frozen

    codec.save(tmp_path / "variable")
    with pytest.raises(ValueError, match="have other shapes than the settings"):
        load_into(plain, tmp_path / "variable")


def test_encodec_with_chunks_and_scales_trains_at_a_variable_bitrate(tmp_path):
    torch.manual_seed(0)
    codec = make_trainable("encodec", ENCODEC_48K, VARIABLE)
    assert codec.n_bandwidths == 1  # the importance takes their place
    clips = audio().expand(-1, 2, -1)
    out = codec(clips)
    assert out.waveform.shape == clips.shape and out.codes.shape[:2] == (4, 4)
    (out.waveform.square().mean() + out.rate_loss).backward()
    assert all(p.grad is not None for p in codec.model.importance.parameters())
    codec.eval().save(tmp_path)
    saved = load_codec(tmp_path)
    encoded = saved.encode_with_side(clips[:1], level=1.0)
    assert set(encoded.side) == {"scales", "depth"}


def test_settings_of_a_variable_bitrate_need_its_quantizer():
    with pytest.raises(ValueError, match="they need quantizer variable; set it, or leave them out"):
        CodecTrainingSettings(variable=VariableSettings(alpha=4.0))
    CodecTrainingSettings(variable=VariableSettings())
    CodecTrainingSettings(architecture="encodec", quantizer="variable", variable=VARIABLE)


def test_the_recipe_of_speech_16k_starts_from_it():
    plain, variable = (
        parse_settings(CodecTrainingSettings, ROOT / f"recipes/train_codec{name}.yaml", [])
        for name in ("", ".vbr")
    )
    assert variable.quantizer == "variable" and variable.start_from == "speech-16k"
    assert variable.model == plain.model and variable.weights.rate > 0
    assert replace(variable.weights, rate=plain.weights.rate) == plain.weights
    codec = make_trainable("stft", variable.model, variable.variable)
    load_into(codec, variable.start_from)
    base = load_codec("speech-16k").model.state_dict()
    ours = codec.model.state_dict()
    assert all(ours[name].equal(weight) for name, weight in base.items())
    assert {name.split(".")[0] for name in set(ours) - set(base)} == {"importance"}


def test_the_control_with_level_dropout_differs_in_the_quantizer_alone():
    variable, control = (
        parse_settings(CodecTrainingSettings, ROOT / f"recipes/train_codec.{name}.yaml", [])
        for name in ("vbr", "level_dropout")
    )
    shared = replace(
        variable,
        name=control.name,
        quantizer="residual",
        variable=VariableSettings(),
        model=variable.model | {"quantizer_dropout": 1 - variable.variable.full_share},
        weights=replace(variable.weights, rate=control.weights.rate),
    )
    assert control == shared


def test_the_recipe_of_the_paper():
    s = parse_settings(CodecTrainingSettings, ROOT / "recipes/train_codec.vrvq44k.yaml", [])
    with torch.device("meta"):
        codec = make_trainable("dac", s.model, s.variable)
    assert codec.sample_rate == 44100 and codec.model.config.hop_length == 512
    assert codec.model.importance.layers[0].alpha.shape == (1024,)
    assert (s.variable.alpha, s.variable.scales, s.weights.rate) == (2.0, (0.125, 6.0), 2.0)


@pytest.mark.parametrize(("name", "config"), [*ARCHITECTURES, ("encodec", ENCODEC_48K)])
def test_a_variable_bitrate_is_also_scored_with_half_the_levels(
    name, config, tiny_corpus, tmp_path
):
    torch.manual_seed(0)
    codec = make_trainable(name, config, VARIABLE).eval()
    corpus = open_corpus(tiny_corpus, split="validation")
    found = validate(codec, corpus, tmp_path, quantize=True)
    full = codec.as_codec().spec.bitrate / 1000
    assert full / 2 <= found["kbps_half"] < 0.75 * full  # with the bits of the depth
    assert isinstance(found["pesq_half"], float) and len(found["codebook_use"]) == 4
    plain = make_trainable(name, config).eval()
    for model, quantize in ((plain, True), (codec, False)):
        scores = validate(model, corpus, tmp_path, quantize=quantize)
        assert not {"kbps_half", "pesq_half"} & set(scores)


def flags(name: str, folder: Path, corpus: Path, **more: object) -> list[object]:
    config = {
        "name": name, "runs": str(folder), "corpora": [str(corpus)], "model": STFT,
        "quantizer": "variable", "variable": {"widths": [8, 4], "dropout_share": 0.25},
        "steps": 6, "adversarial_start": 3, "batch_size": 4, "seconds": 0.25,
        "validate_every": 3, "checkpoint_every": 2, "validation_min_seconds": 0.0, "ema": 0.5,
        "tracker": "none", "mixed_precision": "no", "max_codebook_loss": 1e6,
        "discriminator": {"periods": [2], "windows": [128], "channels": 2}, **more,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", path]


def test_the_recipe_resumes_exactly_and_starts_from_a_plain_codec(tiny_corpus, tmp_path):
    run("train_codec.py", *flags("whole", tmp_path, tiny_corpus, tracker="tensorboard"))
    process = launch("train_codec.py", *flags("cut", tmp_path, tiny_corpus))
    kill_when(process, lambda: (tmp_path / "cut/checkpoints/step-4").is_dir())
    run("train_codec.py", *flags("cut", tmp_path, tiny_corpus))
    a, b = (load_file(tmp_path / n / "codec/model.safetensors") for n in ("whole", "cut"))
    assert all(a[name].equal(b[name]) for name in a)
    assert json.loads((tmp_path / "whole/codec/config.json").read_text())["importance"] == {
        "kind": "paper", "widths": [8, 4]
    }  # fmt: skip

    final = json.loads((tmp_path / "whole/metrics.json").read_text())["final"]
    assert {"pesq", "pesq_half", "kbps_half"} <= set(final)

    logs = EventAccumulator(str(tmp_path / "whole/logs")).Reload()
    assert logs.Scalars("learning_rate")[-1].value == pytest.approx(1e-4, rel=1e-3)
    assert 0.3 < logs.Scalars("rate")[-1].value < 0.7  # the mean importance

    plain = {"quantizer": "residual", "variable": {}, "steps": 1}
    run("train_codec.py", *flags("plain", tmp_path, tiny_corpus, **plain))
    start = {"start_from": str(tmp_path / "plain/codec"), "steps": 1, "learning_rate": 1e-9}
    run("train_codec.py", *flags("variable", tmp_path, tiny_corpus, **start))
    codecs = [load_codec(tmp_path / name / "codec") for name in ("plain", "variable")]
    clip = make_tone(1.0, 0)[None]
    codes = [codec.encode(clip) for codec in codecs]
    assert (codes[0] == codes[1]).float().mean() > 0.9
    importance = codecs[1].model.encode_with_importance(clip)[1]
    assert depth_of(importance, 1.0, 4).float().mean() > 1


@pytest.mark.parametrize(("name", "config"), ARCHITECTURES)
def test_the_importance_network_trains_alone(name, config, tmp_path):
    torch.manual_seed(0)
    make_trainable(name, config).as_codec().save_pretrained(tmp_path / "base")
    alone = replace(VARIABLE, importance_only=True, scales=(0.5, 2.0))
    codec = make_trainable(name, config, alone)
    load_into(codec, tmp_path / "base")
    before = {k: w.clone() for k, w in codec.state_dict().items()}
    trained = [p for p in codec.parameters() if p.requires_grad]
    assert len(trained) == len(list(codec.model.importance.parameters()))
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    for _ in range(3):
        out = codec.train()(audio())
        (out.waveform - audio()).square().mean().add(out.rate_loss).backward()
        optimizer.step()
    changed = {k for k, w in codec.state_dict().items() if not torch.equal(w, before[k])}
    assert changed and all("importance" in k for k in changed)
    codec.as_codec().save_pretrained(tmp_path / "vbr")
    base, vbr = load_codec(tmp_path / "base"), load_codec(tmp_path / "vbr")
    clip = audio()[:1].expand(-1, base.spec.channels, -1)
    assert torch.equal(base.encode(clip), vbr.encode(clip)) and vbr.variable


def test_the_importance_network_alone_needs_a_codec_to_start_from():
    more = {"quantizer": "variable", "variable": replace(VARIABLE, importance_only=True)}
    with pytest.raises(ValueError, match="importance_only: it needs a codec to start from"):
        CodecTrainingSettings(**more)
    with pytest.raises(ValueError, match="continuous_steps 0"):
        CodecTrainingSettings(start_from="speech-16k", continuous_steps=5, **more)
