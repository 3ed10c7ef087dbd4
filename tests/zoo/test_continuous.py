"""Continuous codecs are found by name or folder, saved with a card, and listed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tokgen
from makers.audio import make_tone
from makers.continuous import make_continuous
from tokgen.cli.settings import Info
from tokgen.cli.verbs import info
from tokgen.nn.cards import ModelCardFacts
from tokgen.zoo.continuous import StftContinuous, load_continuous
from tokgen.zoo.lookup import list_codecs, load_codec, load_roundtrip, read_card


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A continuous codec in a zoo."""
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path / "zoo"))
    facts = ModelCardFacts(licence="CC0-1.0", summary="for tests")
    make_continuous().save_pretrained(tmp_path / "zoo" / "tiny-continuous", facts)
    return tmp_path / "zoo" / "tiny-continuous"


def test_a_codec_loads_by_name_and_by_folder(folder: Path) -> None:
    original, audio = make_continuous(), make_tone(0.5, 0)[None]
    for name in ("tiny-continuous", folder, str(folder)):
        for load in (tokgen.load_continuous, load_roundtrip):
            codec = load(name)
            assert isinstance(codec, StftContinuous)
            assert codec.spec == original.spec
            assert torch.equal(codec.encode(audio), original.encode(audio))
    assert load_continuous("tiny-continuous").loaded_from == ("tiny-continuous", None)
    assert load_continuous(folder).loaded_from == (str(folder), None)
    inside = load_continuous(folder.parent, subfolder="tiny-continuous")
    assert inside.loaded_from is None and inside.spec == original.spec


def test_the_wrong_kind_is_named(folder: Path, tiny_codec_folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no codes: load_continuous or load_roundtrip .*quantize_offline\.py"
    ):
        load_codec("tiny-continuous")
    with pytest.raises(ValueError, match=r"tiny has a quantizer .*: load_codec loads it"):
        load_continuous(tiny_codec_folder)
    with pytest.raises(ValueError, match="no bitrates to choose from; leave out ':6'"):
        load_continuous("tiny-continuous:6")
    with pytest.raises(ValueError, match="leave out ':6'"):
        load_roundtrip("tiny-continuous:6")
    with pytest.raises(ValueError, match="mp3:24 has no codes"):
        load_continuous("mp3:24")
    with pytest.raises(FileNotFoundError, match="did you mean tiny-continuous"):
        load_continuous("tiny-continous")
    with pytest.raises(ValueError, match="only hub ids have revisions"):
        load_continuous("tiny-continuous", revision="main")


@pytest.mark.parametrize(
    ("setting", "value"), [("hop_length", 0), ("latent_dim", "x"), ("latent_dim", 2.5)]
)
def test_a_damaged_folder_is_named(folder: Path, setting: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | {setting: value}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json"):
        load_continuous("tiny-continuous")
    with pytest.raises(ValueError, match=r"config\.json: a setting is missing or wrong"):
        read_card(folder)


def test_codecs_are_listed_with_latents_in_place_of_levels(
    folder: Path, tiny_codec_folder: Path
) -> None:
    (folder.parent / "tiny").symlink_to(tiny_codec_folder)
    cards = {card.name: card for card in list_codecs()}
    card = cards["tiny-continuous"]
    assert (card.class_name, card.summary) == ("StftAutoencoder", "for tests")
    assert card.spec == replace(make_continuous().spec, weight_hash="")
    rows = {row[0]: row for row in list_codecs().parts()[0].rows}
    assert rows["tiny-continuous"] == (
        "tiny-continuous", "16000", "320", "50", "8 latents", "6.40", "", "CC0-1.0", "for tests",
    )  # fmt: skip
    assert rows["tiny"][4] == "4 x 60"
    record = next(r for r in list_codecs().records() if r["name"] == "tiny-continuous")
    assert (record["latent_dim"], record["bitrate"]) == (8, 6400)


def test_info_describes_it(folder: Path) -> None:
    result = info(Info(codec="tiny-continuous"))
    text = str(result)
    assert "latents      8 per frame, without a quantizer" in text
    assert "bitrate      6.40 kbps as float16" in text
    assert "codebooks" not in text
    assert result.to_dict()["latent_dim"] == 8


def test_saved_weights_give_the_same_latents(tmp_path: Path) -> None:
    codec, audio = make_continuous(), make_tone(0.5, 0)[None]
    codec.save_pretrained(tmp_path / "exact")
    exact = load_continuous(tmp_path / "exact")
    assert torch.equal(exact.encode(audio), codec.encode(audio))
    assert exact.spec.weight_hash == codec.spec.weight_hash

    codec.save_pretrained(tmp_path / "half", dtype=torch.float16)
    half = load_continuous(tmp_path / "half")
    assert half.spec.weight_hash != codec.spec.weight_hash
    torch.testing.assert_close(half.encode(audio), codec.encode(audio), rtol=0, atol=0.02)
    assert next(codec.model.parameters()).dtype == torch.float32  # the codec itself is unchanged
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "exact")]
    assert sizes[0] < 0.7 * sizes[1]


def test_the_card(tmp_path: Path) -> None:
    codec = make_continuous()
    facts = ModelCardFacts(licence="CC-BY-4.0", summary="mine")
    codec.save_pretrained(tmp_path / "a", facts)
    text = (tmp_path / "a" / "README.md").read_text()
    assert "8 per frame, 50 frames per second" in text and codec.spec.weight_hash in text
    assert 'tokgen.load_continuous("' in text
    loaded = load_continuous(tmp_path / "a")
    assert loaded.spec.licence == "CC-BY-4.0"
    assert StftContinuous.from_pretrained(tmp_path / "a").spec.licence == "CC-BY-4.0"

    loaded.save_pretrained(tmp_path / "b")  # unchanged weights keep their card
    assert (tmp_path / "b" / "README.md").read_text() == text
    (tmp_path / "b" / "README.md").write_text("---\nlicense: mit\n---\nby hand\n")
    codec.save_pretrained(tmp_path / "b", facts)
    assert (tmp_path / "b" / "README.md").read_text().endswith("by hand\n")
    assert load_continuous(tmp_path / "b").spec.licence == "MIT"
