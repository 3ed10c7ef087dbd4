"""Saved codecs of other libraries train further: folders with random weights, and hub ids."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from makers.audio import codec_tone
from makers.codecs import make_dac, make_encodec, make_mimi, make_variable, make_xcodec, save_codec
from makers.hub import local_hub
from tokgen.codec_training.adversary import Adversary
from tokgen.codec_training.architectures import load_into, make_trainable, open_trainable
from tokgen.codec_training.loop import CodecTraining
from tokgen.codec_training.settings import CodecTrainingSettings, TuningSettings, check_sources
from tokgen.codec_training.train import train_codec
from tokgen.codec_training.tuning import tune_codec
from tokgen.quantizers.settings import VariableSettings
from tokgen.zoo.lookup import load_codec

MAKERS = {
    "dac": lambda: make_dac("dac-odd"),
    "encodec": lambda: make_encodec("encodec-24k"),
    "encodec stereo": lambda: make_encodec("encodec-48k"),
    "mimi": make_mimi,
}


@pytest.fixture(params=MAKERS)
def folder(request, tmp_path) -> Path:
    MAKERS[request.param]().save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def settings_for(folder, corpus, tmp_path, **more) -> CodecTrainingSettings:
    settings = {
        "name": "run", "runs": str(tmp_path), "architecture": "auto", "start_from": str(folder),
        "corpora": [str(corpus)], "discriminator": {"periods": [], "windows": [64], "channels": 2},
        "discriminator_warmup": 2, "steps": 2, "batch_size": 2, "seconds": 0.25,
        "validation_min_seconds": 0.0, "validate_every": 4, "mixed_precision": "no",
        "learning_rate": 1e-3, "joint_learning_rate": 1e-3, "max_codebook_loss": 1e9,
    }  # fmt: skip
    return CodecTrainingSettings(**{**settings, **more})


def test_a_saved_codec_opens_as_it_was(folder):
    saved, trainable = load_codec(folder), open_trainable(folder).eval()
    audio = codec_tone(saved, seconds=0.6)
    opened = trainable.as_codec()
    encoded = saved.encode_with_side(audio)
    assert torch.equal(opened.encode(audio), encoded.codes)
    with torch.no_grad():
        out = trainable(audio.expand(-1, trainable.n_channels, -1))
    if "stereo" not in folder.name:  # chunks of which the last is padded
        assert torch.equal(out.codes, encoded.codes)
    whole = saved.decode(encoded.codes, audio.shape[-1], encoded.side, mono=False)
    torch.testing.assert_close(out.waveform, whole, atol=1e-4, rtol=0)


def test_a_training_does_not_go_on_with_other_audio(tiny_corpus, tmp_path):
    make_dac("dac-odd").save_pretrained(tmp_path / "dac")
    corpus = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, corpus)
    settings = settings_for(tmp_path / "dac", corpus, tmp_path, discriminator_warmup=0)
    assert train_codec(settings)
    (corpus / "c.wav").write_bytes((corpus / "a one.wav").read_bytes())
    with pytest.raises(ValueError, match="holds a run with audio = "):
        train_codec(settings)


def test_settings_inside_of_settings_keep_the_others(tmp_path):
    make_mimi().save_pretrained(tmp_path / "mimi")
    ropes = [
        open_trainable(tmp_path / "mimi", changes).model.config.rope_parameters
        for changes in ({}, {"rope_parameters": {"rope_theta": 5000.0}})
    ]
    assert ropes[1] == {**ropes[0], "rope_theta": 5000.0} != ropes[0] and len(ropes[0]) > 1


def test_a_codec_trains_after_its_discriminator(folder, tiny_corpus, tmp_path, monkeypatch):
    judged, descents, step, descend = [], [], Adversary.step, CodecTraining.descend
    before = load_codec(folder)

    def stepped(self, *args, **how):
        judged.append(how["judge"])
        return step(self, *args, **how)

    def descended(self, *args, **how):
        if not descents:  # nothing has changed the codec so far
            now = self.accelerator.unwrap_model(self.network).as_codec()
            same = [b.allclose(a) for a, b in zip(*_weights(before, now), strict=True)]
            assert all(same)
        descents.append(self.step)
        return descend(self, *args, **how)

    monkeypatch.setattr(Adversary, "step", stepped)
    monkeypatch.setattr(CodecTraining, "descend", descended)
    more = {}
    if "stereo" in folder.name:
        more["discriminator"] = {"kind": "msstft", "windows": [64], "width": 2, "channels": 2}
    history = train_codec(settings_for(folder, tiny_corpus, tmp_path, **more))
    assert history and history[-1]["step"] == 4
    assert judged == [False, False, True, True] and descents == [3, 4]

    after = load_codec(tmp_path / "run" / "codec")
    moved = {
        name.split(".")[0]
        for name, weight in before.model.state_dict().items()
        if not weight.equal(after.model.state_dict()[name])
    }
    if folder.name == "mimi":
        assert not moved & {"encoder", "quantizer", "encoder_transformer", "downsample"}
        audio = codec_tone(before, seconds=0.6)
        assert torch.equal(after.encode(audio), before.encode(audio))
    assert {"decoder"} <= moved and ("encoder" in moved) == (folder.name != "mimi")


def _weights(*codecs):
    """The weights of each codec that do not train as moving averages."""
    return [list(codec.model.parameters()) for codec in codecs]


def test_a_codec_of_the_hub_trains(tiny_corpus, tmp_path, monkeypatch):
    make_dac("dac-even").save_pretrained(tmp_path / "dac")
    with local_hub(tmp_path / "hf", monkeypatch) as hub:
        hub.add("models", "owner/dac", tmp_path / "dac")
        settings = settings_for("owner/dac", tiny_corpus, tmp_path, steps=1)
        check_sources(settings)
        assert train_codec(settings)
    card = (tmp_path / "run" / "codec" / "README.md").read_text()
    assert "trained from dac" in card


def test_a_setting_of_the_network_can_change(tmp_path):
    make_dac("dac-even").save_pretrained(tmp_path)
    codec = open_trainable(tmp_path, {"quantizer_dropout": 0.5})
    assert codec.as_codec().model.config.quantizer_dropout == 0.5
    with pytest.raises(ValueError, match=r"model\.latent_dim: .* is a DacModel, which has no such"):
        open_trainable(tmp_path, {"latent_dim": 5})
    with pytest.raises(ValueError, match="other shapes than the settings"):
        open_trainable(tmp_path, {"codebook_size": 64})


def test_a_variable_bitrate_is_added_and_kept(tmp_path):
    make_dac("dac-even").save_pretrained(tmp_path / "plain")
    codec = open_trainable(tmp_path / "plain", variable=VariableSettings(widths=(4,) * 4))
    codec.save(tmp_path / "variable")
    again = open_trainable(tmp_path / "variable", variable=VariableSettings(widths=(4,) * 4))
    assert again.as_codec().variable
    with pytest.raises(ValueError, match="has a variable bitrate: set quantizer variable"):
        open_trainable(tmp_path / "variable")


def test_our_own_codec_opens(tmp_path):
    folder = save_codec(make_variable(None), tmp_path / "vary")
    with pytest.raises(ValueError, match="set quantizer variable to keep it"):
        open_trainable(folder)
    codec, saved = open_trainable("speech-16k"), load_codec("speech-16k")
    assert codec.as_codec().spec.weight_hash == saved.spec.weight_hash


def test_codecs_that_cannot_train_are_refused(tmp_path):
    make_xcodec().save_pretrained(tmp_path / "xcodec")
    make_mimi().save_pretrained(tmp_path / "mimi")
    with pytest.raises(ValueError, match="is a XcodecModel of transformers, which cannot be"):
        open_trainable(tmp_path / "xcodec")
    with pytest.raises(ValueError, match="set quantizer residual"):
        open_trainable(tmp_path / "mimi", variable=VariableSettings())
    with pytest.raises(ValueError, match="only the decoder trains; set start_from"):
        make_trainable("mimi", {"num_filters": 4, "num_hidden_layers": 1})
    with pytest.raises(ValueError, match="continuous_steps 0"):
        open_trainable(tmp_path / "mimi")(torch.zeros(1, 1, 640), quantize=False)
    with pytest.raises(ValueError, match=r"is a MimiModel, but these settings make a StftCodec"):
        load_into(make_trainable("stft", {"width": 8}), tmp_path / "mimi")
    with pytest.raises(ValueError, match="architecture auto: it is that of start_from"):
        CodecTrainingSettings(architecture="auto")


def test_mimi_is_not_tuned_against_drift(tiny_corpus, tmp_path):
    make_mimi().save_pretrained(tmp_path / "mimi")
    settings = TuningSettings(
        codec=str(tmp_path / "mimi"), corpora=[str(tiny_corpus)], runs=str(tmp_path)
    )
    for loss in ("code", "margin"):
        with pytest.raises(ValueError, match="does not expose its stages"):
            tune_codec(replace(settings, loss=loss))
