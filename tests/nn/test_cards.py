"""Model cards: what they say, and which ones are replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from makers.codecs import MAKERS, make_dac, make_stft_codec
from makers.continuous import make_continuous
from tokgen.modelling.masked import MaskedTransformer
from tokgen.nn.cards import MARK, ModelCardFacts, read_licence
from tokgen.nn.eight_bits import to_eight_bits
from tokgen.zoo.continuous import load_continuous
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.stft import StftCodec

SIZES = {"dim": 32, "depth": 2, "heads": 2, "dim_head": 16}
SCORES = {
    "original": {"pesq": {"mean": 4.6, "low": 4.5, "high": 4.7, "n": 7, "n_failed": 0}},
    "generated": {
        "pesq": {"mean": 2.25, "low": 2.0, "high": 2.5, "n": 7, "n_failed": 1, "backend": "P.862"},
        "cer": {"mean": None, "low": None, "high": None, "n": 0, "n_failed": 8},
    },
    "unconditional": {
        "pesq": {"mean": 1.1, "low": 1.0, "high": 1.2, "n": 7, "n_failed": 0},
        "cer": {"mean": None, "low": None, "high": None, "n": 0, "n_failed": 0},
    },
}


def test_a_models_card_says_what_the_caller_knows(tiny_codec: StftCodec, tmp_path: Path) -> None:
    model = MaskedTransformer.for_codec(tiny_codec, conditioning_dim=0, **SIZES)
    facts = ModelCardFacts(
        corpus="my | voice",
        fingerprint="abc123",
        hours=1.5,
        settings={"steps": 10, "model": {"preset": "small"}},
        command="tokgen train --steps 10",
        scores=SCORES,
        scored_on="8 test clips",
        licence="CC-BY-4.0",
        language=["en"],
    )
    model.save_pretrained(tmp_path, card=facts)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.language) == ("cc-by-4.0", ["en"])
    assert card.data.library_name == "tokgen"
    (result,) = card.data.eval_results  # of "generated", without the metric that failed
    assert (result.metric_type, result.metric_value) == ("pesq", 2.25)
    assert (result.dataset_name, result.metric_name) == ("8 test clips", "pesq of generated, n = 7")
    for text in (
        "`my / voice`",
        "1.50 h",
        "`abc123`",
        "tokgen train --steps 10",
        "| `model.preset` | `small` |",
        "| generated | 2.250 [2.000, 2.500] (n = 7, 1 failed) | – (n = 0, 8 failed) |",
        "| unconditional | 1.100 [1.000, 1.200] (n = 7) | – |",
        tiny_codec.spec.weight_hash,
        "tokgen.load_codec('tiny')",
    ):
        assert text in card.text, text


def test_a_card_without_facts_has_no_empty_sections(tiny_codec: StftCodec, tmp_path: Path) -> None:
    MaskedTransformer.for_codec(tiny_codec, **SIZES).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "## Data" not in text and "## Training" not in text and "## Scores" not in text


def test_a_card_written_by_hand_is_kept(tiny_codec: StftCodec, tmp_path: Path) -> None:
    model = MaskedTransformer.for_codec(tiny_codec, **SIZES)
    model.save_pretrained(tmp_path)
    ours = (tmp_path / "README.md").read_text()
    model.save_pretrained(tmp_path, card=ModelCardFacts(corpus="second"))
    assert "second" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(ours.replace(MARK, "") + "mine")
    model.save_pretrained(tmp_path, card=ModelCardFacts(corpus="third"))
    model.write_card(tmp_path, ModelCardFacts(corpus="fourth"))
    assert (tmp_path / "README.md").read_text() == ours.replace(MARK, "") + "mine"


@pytest.mark.parametrize("kind", ["stft", "dac"])
def test_a_card_goes_with_its_weights(kind: str, tmp_path: Path) -> None:
    codec = make_stft_codec() if kind == "stft" else make_dac("dac-even")
    codec.save_pretrained(tmp_path / "a", card=ModelCardFacts(summary="s", licence="MIT"))
    loaded = load_codec(tmp_path / "a")
    assert loaded.spec.licence == "MIT"
    hand = "---\nlicense: mit\n---\nBy hand.\n"
    (tmp_path / "a" / "README.md").write_text(hand)
    loaded = load_codec(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "same")
    assert (tmp_path / "same" / "README.md").read_text() == hand
    with torch.no_grad():
        next(loaded.model.parameters()).mul_(2)
    loaded.save_pretrained(tmp_path / "changed")
    changed = (tmp_path / "changed" / "README.md").read_text()
    assert MARK in changed and "By hand" not in changed
    assert load_codec(tmp_path / "changed").spec.licence == "MIT"
    assert load_codec(tmp_path / "changed").spec.weight_hash in changed


@pytest.mark.parametrize("kind", ["stft", "dac", "continuous"])
def test_a_card_states_the_hash_of_the_weights_that_are_loaded(kind: str, tmp_path: Path) -> None:
    """Also if they are saved in another type, and if the card of another type was loaded."""
    makers = {"stft": make_stft_codec, "dac": MAKERS["dac-even"], "continuous": make_continuous}
    codec: Any = makers[kind]()
    load: Any = load_continuous if kind == "continuous" else load_codec
    codec.save_pretrained(tmp_path / "whole")
    for source, name in ((codec, "half"), (load(tmp_path / "whole"), "loaded")):
        source.save_pretrained(tmp_path / name, dtype=torch.float16)
        found = load(tmp_path / name).spec.weight_hash
        assert found != codec.spec.weight_hash
        assert f"| weights | `{found}` |" in (tmp_path / name / "README.md").read_text()


@pytest.mark.parametrize("hand", [False, True])
def test_weights_in_8_bits_change_the_hash_in_the_card(hand: bool, tmp_path: Path) -> None:
    codec = make_stft_codec()
    codec.save_pretrained(tmp_path, ModelCardFacts(summary="s"))
    text = (tmp_path / "README.md").read_text()
    assert codec.spec.weight_hash in text
    if hand:
        (tmp_path / "README.md").write_text(text := text.replace(MARK, ""))
        with pytest.warns(
            UserWarning, match=f"by hand and states the hash {codec.spec.weight_hash}"
        ):
            to_eight_bits(tmp_path)
        assert (tmp_path / "README.md").read_text() == text
        return
    to_eight_bits(tmp_path)
    now = load_codec(tmp_path).spec.weight_hash
    changed = (tmp_path / "README.md").read_text()
    assert now != codec.spec.weight_hash
    assert changed == text.replace(codec.spec.weight_hash, now)
    to_eight_bits(tmp_path)
    assert (tmp_path / "README.md").read_text() == changed


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"license": "cc-by-sa-3.0"}, "CC-BY-SA-3.0"),
        ({"license": "apache-2.0"}, "Apache-2.0"),
        ({"license": "other", "license_name": "my licence"}, "my licence"),
        ({"license": "other"}, ""),
        ({"license": "unknown"}, ""),
        ({"license": ["mit"]}, ""),
        ({}, ""),
    ],
)
def test_licences_are_spelled_as_spdx(metadata: dict, licence: str) -> None:
    assert read_licence(metadata) == licence
