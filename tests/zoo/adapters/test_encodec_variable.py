"""EnCodec with an importance network."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import EncodecModel

from makers.audio import codec_tone
from makers.codecs import make_encodec, make_variable_encodec
from tokgen.codec.checks import NotCausal
from tokgen.zoo.adapters.encodec import EncodecCodec
from tokgen.zoo.adapters.encodec_variable import VariableEncodec
from tokgen.zoo.lookup import load_codec

KINDS = ["encodec-24k", "encodec-48k"]


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_those_of_a_plain_encodec(kind, tmp_path):
    made = make_variable_encodec(None, kind)
    made.save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    assert isinstance(codec.model, VariableEncodec) and codec.variable
    plain = EncodecCodec.from_model(EncodecModel.from_pretrained(tmp_path), "plain")
    assert plain.variable is False
    audio = codec_tone(codec, 9000)
    encoded = codec.encode_with_side(audio)
    assert encoded.codes.equal(plain.encode(audio))
    heard = codec.decode(encoded.codes, side=encoded.side)
    assert heard.equal(plain.decode(encoded.codes, side=encoded.side))
    once = codec.encode_with_importance(audio)
    assert once.codes.equal(encoded.codes)
    assert once.side["importance"].equal(made.encode_with_importance(audio).side["importance"])
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["importance"] == {"kind": "paper", "widths": [8, 4]}


@torch.inference_mode()
def test_the_feature_is_the_output_of_the_lstm():
    codec = make_variable_encodec(None)
    model, heard = codec.model, []
    layer = next(x for x in model.encoder.layers if hasattr(x, "lstm"))
    hook = layer.register_forward_hook(lambda *x: heard.append(x[2]))
    audio = codec_tone(codec, 4000)
    latents, importance = model.encode_with_importance(audio)
    hook.remove()
    assert importance.equal(model.importance(heard[0]))
    assert latents.equal(model.encoder(audio))
    windowed = codec.encode_with_importance(audio).side["importance"]
    torch.testing.assert_close(windowed, importance)


def test_the_importance_of_a_chunk_depends_on_no_other():
    codec = make_variable_encodec(None, "encodec-48k")
    s, audio = codec.spec, codec_tone(codec, 16000)
    whole = codec.encode_with_importance(audio)
    frames = s.chunk_length // s.hop_length
    for i in range(2):
        chunk = audio[..., i * s.chunk_stride :][..., : s.chunk_length]
        alone = codec.encode_with_importance(chunk)
        part = slice(i * frames, (i + 1) * frames)
        assert whole.side["importance"][:, part].equal(alone.side["importance"][:, :frames])
        assert whole.side["scales"][:, i].equal(alone.side["scales"][:, 0])


def test_scales_and_depth_go_together():
    codec = make_variable_encodec(kind="encodec-48k")
    audio = codec_tone(codec, 16000)
    encoded = codec.encode_with_side(audio)
    assert set(encoded.side) == {"scales", "depth"} == set(codec.side_names)
    loud = dict(encoded.side) | {"scales": 2 * encoded.side["scales"]}
    heard = codec.decode(encoded.codes, side=encoded.side)
    torch.testing.assert_close(codec.decode(encoded.codes, side=loud), 2 * heard)


def test_a_model_that_needs_the_whole_utterance_has_a_depth_too():
    more = {"chunk_length_s": None, "importance": {"widths": [8, 4]}}
    codec = make_encodec("encodec-48k", **more)
    audio = codec_tone(codec, 9000)
    encoded = codec.encode_with_side(audio, level=1.0)
    assert not codec.in_pieces and set(encoded.side) == {"scales", "depth"}
    assert codec.decode(encoded.codes, 9000, encoded.side).isfinite().all()


def test_an_importance_network_looks_ahead():
    assert make_encodec("encodec-24k").spec.latency_samples > 0
    codec = make_variable_encodec(None)
    assert codec.spec.latency_samples == 0
    with pytest.raises(NotCausal):
        codec.stream()


@pytest.mark.parametrize("wrong", [5, {"kind": "huge"}, {"wide": 3}])
def test_wrong_settings_of_the_network(wrong, tmp_path):
    make_variable_encodec(None).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"importance": wrong}))
    with pytest.raises(ValueError, match=r"config\.json"):
        load_codec(tmp_path)
