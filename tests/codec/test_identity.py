"""Codecs are compared by the hashes of what their codes depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from makers.codecs import make_stft_codec
from tokgen.codec.continuous import ContinuousSpec
from tokgen.codec.identity import (
    audio_key,
    check_made_for,
    codes_key,
    encodes_like,
    show_hashes,
    unclaimed,
)
from tokgen.codec.spec import CodecSpec

BASE = CodecSpec("base", 16000, 320, 4, 60, "a" * 64, encoder_hash="e" * 64)
TUNED = replace(BASE, name="tuned", weight_hash="b" * 64)  # only its decoder differs
OTHER = replace(BASE, name="other", weight_hash="c" * 64, encoder_hash="d" * 64)
OLD = replace(BASE, encoder_hash="")  # as older versions wrote it
WHOLE = replace(BASE, encoder_hash="a" * 64)  # encoder and decoder cannot be told apart


def test_codecs_with_equal_encoders_encode_alike() -> None:
    for one, other, alike in (
        (BASE, BASE, True),
        (BASE, TUNED, True),
        (BASE, OTHER, False),
        (OLD, BASE, True),
        (OLD, OLD, True),
        (OLD, TUNED, False),  # nothing says that it is the same encoder
        (WHOLE, WHOLE, True),
        (WHOLE, replace(WHOLE, weight_hash="b" * 64, encoder_hash="b" * 64), False),
    ):
        assert encodes_like(one, other) == encodes_like(other, one) == alike
    assert show_hashes(BASE, OTHER) == ("encoder eeeeeeeeeeee", "encoder dddddddddddd")
    assert show_hashes(OLD, OTHER) == ("weights aaaaaaaaaaaa", "weights cccccccccccc")


def test_specs_write_the_hash_if_it_says_more() -> None:
    assert BASE.as_dict()["encoder_hash"] == "e" * 64
    assert CodecSpec(**BASE.as_dict()).encoder_hash == "e" * 64
    assert "encoder_hash" not in OLD.as_dict() and "encoder_hash" not in WHOLE.as_dict()
    with pytest.raises(ValueError, match="encoder_hash = 5: must be a string"):
        replace(BASE, encoder_hash=5)
    continuous = ContinuousSpec.of("x", 16000, 320, 8, weight_hash="a", encoder_hash="e")
    assert ContinuousSpec(**continuous.as_dict()).encoder_hash == "e"
    assert "encoder_hash" not in replace(continuous, encoder_hash="a").as_dict()


def test_models_are_checked_against_their_codec() -> None:
    check_made_for(BASE.as_dict(), TUNED, "the model")
    check_made_for(OLD.as_dict(), BASE, "the model")
    with pytest.raises(ValueError, match=r"codec 'base' \(encoder e{12}\), not for 'other'.* use"):
        check_made_for(BASE.as_dict(), OTHER, "the model")
    with pytest.raises(ValueError, match="the model does not name its codec"):
        check_made_for(None, BASE, "the model")


def test_keys_hold_what_results_depend_on_and_no_descriptions() -> None:
    codec = make_stft_codec()
    described = make_stft_codec()
    described.spec = replace(codec.spec, name="y", licence="other", revision="1", library="z")
    assert audio_key(codec) == audio_key(described) and codes_key(codec) == codes_key(described)
    described.spec = replace(codec.spec, weight_hash="0" * 64)
    assert audio_key(codec) != audio_key(described) and codes_key(codec) == codes_key(described)
    described.spec = replace(codec.spec, encoder_hash="0" * 64, weight_hash="0" * 64)
    assert codes_key(codec) != codes_key(described)
    described.spec = replace(codec.spec, n_codebooks=2)
    assert audio_key(codec) != audio_key(described) and codes_key(codec) != codes_key(described)
    searched = codec.with_beam(4)
    assert audio_key(codec) != audio_key(searched) and codes_key(codec) != codes_key(searched)
    codec.spec = replace(codec.spec, weight_hash="", encoder_hash="")  # known by its name only
    assert codes_key(codec)["name"] == audio_key(codec)["name"] == "tiny"
    assert "codec.name" not in unclaimed(codec.spec, "codec")
    assert {"codec.licence", "data.codec.name"} <= {*unclaimed(BASE, "codec", "data.codec")}
