"""Codecs are found by name, folder or hub id, and damaged folders are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DacConfig, DacModel

import tokgen.zoo.finding
from makers.audio import make_tone
from makers.codecs import make_encodec, make_stft_codec, save_codec, save_old_codec
from makers.paths import ROOT
from tokgen.codec.base import Codec, WaveformCodec
from tokgen.corpus.listed import as_corpus
from tokgen.zoo.adapters.dac import DacCodec
from tokgen.zoo.continuous import load_continuous
from tokgen.zoo.lookup import (
    as_codec,
    find_in_zoo,
    list_codecs,
    load_codec,
    load_roundtrip,
    read_card,
)


@pytest.fixture(autouse=True)
def zoo(tiny_codec_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo in $TOKGEN_ZOO that holds "tiny"."""
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    return tiny_codec_folder.parent


@pytest.fixture
def dac_folder(tmp_path: Path) -> Path:
    config = DacConfig(
        encoder_hidden_size=4,
        decoder_hidden_size=16,
        downsampling_ratios=[2, 4],
        n_codebooks=2,
        codebook_size=16,
    )
    DacModel(config).save_pretrained(tmp_path / "little-dac")
    return tmp_path / "little-dac"


def test_a_zoo_codec_is_listed_and_loaded(tiny_codec: Codec, zoo: Path) -> None:
    card = next(card for card in list_codecs() if card.name == "tiny")
    assert card.folder == zoo / "tiny"
    assert card.summary == "for tests"
    assert card.class_name == "StftCodecModel"
    codec = load_codec("tiny")
    assert codec.spec == tiny_codec.spec
    assert card.spec == replace(codec.spec, weight_hash="")
    waveform = make_tone(1.0, 0)[None]
    assert torch.equal(codec.encode(waveform), tiny_codec.encode(waveform))


def test_a_folder_is_loaded(tmp_path: Path) -> None:
    other = make_stft_codec(seed=3)
    folder = save_codec(other, tmp_path / "mine")
    for source in (folder, str(folder)):
        codec = load_codec(source)
        assert codec.spec.name == "mine"
        assert codec.spec.weight_hash == other.spec.weight_hash
        assert codec.spec.licence == "CC0-1.0"


def test_a_folder_in_the_old_form_is_loaded(tmp_path: Path) -> None:
    codec = make_stft_codec(seed=3)
    folder = save_old_codec(codec, tmp_path / "old")
    found, card = load_codec(folder), read_card(folder)
    assert found.spec == replace(codec.spec, name="old")
    assert (card.spec.licence, card.summary) == ("CC0-1.0", "as before")
    found.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] == (
        "tokgen_stft_codec"
    )
    assert load_codec(tmp_path / "new").spec.licence == "CC0-1.0"


def test_a_card_says_licence_and_summary(dac_folder: Path) -> None:
    (dac_folder / "README.md").write_text("---\nlicense: mit\nsummary: s\n---\nText\n")
    assert load_codec(dac_folder).spec.licence == "MIT"
    assert DacCodec.from_pretrained(dac_folder).spec.licence == "MIT"
    assert read_card(dac_folder).summary == "s"


def test_a_card_that_cannot_be_read_is_a_warning(dac_folder: Path) -> None:
    (dac_folder / "README.md").write_text("---\nlicense: [mit\n---\nText\n")
    with pytest.warns(UserWarning, match=r"README.md: metadata cannot be read"):
        assert load_codec(dac_folder).spec.licence == ""


def test_config_json_decides(tmp_path: Path, dac_folder: Path) -> None:
    make_stft_codec().model.save_pretrained(tmp_path / "plain")
    assert load_codec(tmp_path / "plain").spec.library == "tokgen"
    codec = load_codec(dac_folder)
    assert isinstance(codec, DacCodec)
    assert codec.spec.library == "transformers"
    assert codec.spec.hop_length == 8
    card = read_card(dac_folder)
    assert card.spec == replace(codec.spec, weight_hash="")


def test_codec_toml_of_a_transformers_codec(dac_folder: Path) -> None:
    (dac_folder / "codec.toml").write_text(
        'library = "transformers"\nclass = "DacModel"\nlicence = "MIT"\nsummary = "s"\n'
    )
    assert load_codec(dac_folder).spec.licence == "MIT"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no codec 'tinny' .did you mean tiny.*; known: .*\btiny\b"
    ):
        load_codec("tinny")


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"known: .*tiny.*mp3:KBPS and opus:KBPS"):
        load_roundtrip("aac:64")


def test_a_hub_id_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing'.*known: .*tiny"):
        load_codec("nobody/nothing")


def test_a_hub_codec_carries_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = save_codec(make_stft_codec(), tmp_path / "models--a--b" / "snapshots" / "c0ffee")
    asked = []

    def download(name: str, revision: str | None = None, **options: object) -> Path:
        asked.append((name, revision))
        return snapshot

    monkeypatch.setattr(tokgen.zoo.finding, "resolve_folder", download)
    spec = load_codec("a/b", revision="main").spec
    assert asked == [("a/b", "main")]
    assert (spec.name, spec.revision) == ("a/b", "c0ffee")


def test_revision_of_a_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="only hub ids have revisions"):
        load_codec("tiny", revision="main")


@pytest.mark.parametrize("name", ["../zoo/tiny", "/etc", ".", "..", "", "tiny/", "a\0b", "~"])
def test_paths_are_not_found_in_the_zoo(name: str) -> None:
    assert find_in_zoo(name) is None


@pytest.mark.parametrize("name", ["", "..x", "a b", "no/such/folder", "../../x"])
def test_odd_names_are_unknown(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with pytest.raises(FileNotFoundError):
        load_codec(name)


def test_the_first_zoo_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$TOKGEN_ZOO, then the checkout's codecs/, then the wheel's copy, then the folder."""
    places = [tmp_path / "env", tmp_path / "codecs", tmp_path / "tokgen" / "_codecs"]
    for seed, place in enumerate(places):
        save_codec(make_stft_codec(seed), place / "one")
    save_codec(make_stft_codec(7), tmp_path / "here" / "one")
    monkeypatch.setenv("TOKGEN_ZOO", str(places[0]))
    monkeypatch.setattr("tokgen.__file__", str(tmp_path / "tokgen" / "__init__.py"))
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "pyproject.toml").touch()
    for seed in (0, 1, 2, 7):
        assert load_codec("one").spec.weight_hash == make_stft_codec(seed).spec.weight_hash
        if seed == 0:
            monkeypatch.delenv("TOKGEN_ZOO")
        elif seed == 1:
            (tmp_path / "pyproject.toml").unlink()  # without it, this is no checkout
        elif seed == 2:
            (places[2] / "one" / "config.json").unlink()


def test_a_broken_folder_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_codec(make_stft_codec(), tmp_path / "good")
    bad = save_codec(make_stft_codec(), tmp_path / "bad")
    (bad / "codec.toml").write_text("library = ")
    (tmp_path / "unfinished").mkdir()
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path))
    with pytest.warns(UserWarning, match=r"left out of the zoo: .*codec.toml cannot be read"):
        names = [card.name for card in list_codecs()]
    assert "good" in names
    assert "bad" not in names and "unfinished" not in names


def test_damaged_folders_are_refused_with_a_reason(tmp_path: Path) -> None:
    folder = save_codec(make_stft_codec(), tmp_path / "x")
    (folder / "codec.toml").write_text("library = ")
    with pytest.raises(ValueError, match=r"codec.toml cannot be read"):
        load_codec(folder)
    (folder / "codec.toml").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ValueError, match=r"holds 'bert', which tokgen cannot run"):
        load_codec(folder)
    del config["hop_length"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="hop_length"):
        read_card(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json cannot be read"):
        load_codec(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config.json"):
        load_codec(folder)


def test_the_embedded_zoo_is_well_formed() -> None:
    """Every codec in codecs/ of this checkout loads."""
    root = ROOT / "codecs"
    for folder in sorted(p.parent for p in root.glob("*/config.json")):
        card = read_card(folder)
        assert card.summary and card.spec.licence
        assert (folder / "README.md").is_file()
        load = load_continuous if folder.name.endswith("-continuous") else load_codec
        assert load(folder).spec.weight_hash


@pytest.fixture
def encodec_folder(tmp_path: Path) -> Path:
    """A codec with 1, 2 and 4 levels at 1, 2 and 4 kbps."""
    make_encodec("encodec-24k").model.save_pretrained(tmp_path / "little-encodec")
    return tmp_path / "little-encodec"


def test_a_bitrate_is_chosen_by_argument_or_suffix(encodec_folder: Path) -> None:
    assert load_codec(encodec_folder).spec.n_codebooks == 4
    by_argument = load_codec(encodec_folder, bandwidth=2.0)
    by_suffix = load_codec(f"{encodec_folder}:2")
    for codec in (by_argument, by_suffix):
        assert codec.spec.n_codebooks == 2
        assert codec.spec.name == "little-encodec:2"  # tells two bitrates apart
    assert by_argument.spec == by_suffix.spec


def test_a_bitrate_that_the_codec_lacks(encodec_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"bandwidth 3 kbps.*has 1, 2, 4"):
        load_codec(f"{encodec_folder}:3")
    with pytest.raises(ValueError, match="leave one of them out"):
        load_codec(f"{encodec_folder}:2", bandwidth=4.0)
    with pytest.raises(ValueError, match=r"tiny: bandwidth 6 kbps: the model has 0.295"):
        load_codec("tiny:6")


def test_a_folder_with_a_colon_is_a_folder(tmp_path: Path) -> None:
    folder = save_codec(make_stft_codec(), tmp_path / "take:2")
    assert load_codec(folder).spec.name == "take:2"


def test_waveform_codecs_have_only_a_roundtrip() -> None:
    codec = load_roundtrip("opus:12")
    assert isinstance(codec, WaveformCodec)
    assert (codec.spec.name, codec.spec.bitrate) == ("opus:12", 12000)
    assert load_roundtrip("mp3:24.5").spec.bitrate == 24500
    assert isinstance(load_roundtrip("tiny"), Codec)
    with pytest.raises(ValueError, match="opus:12 has no codes"):
        load_codec("opus:12")
    with pytest.raises(ValueError, match="opus: add a bitrate in kbps, such as opus:24"):
        load_roundtrip("opus")
    with pytest.raises(ValueError, match="opus:24:12: add a bitrate"):
        load_roundtrip("opus:24:12")
    with pytest.raises(ValueError, match="opus:twelve: add a bitrate in kbps"):
        load_roundtrip("opus:twelve")
    with pytest.raises(ValueError, match="mp3:4: mono mp3 has 8 to 320 kbps"):
        load_roundtrip("mp3:4")


def test_none_is_no_codec_and_no_corpus() -> None:
    with pytest.raises(TypeError, match="codec is None: give a name, folder, hub id or Codec"):
        as_codec(None)
    with pytest.raises(TypeError, match="corpus is None: give a folder, file, hub id or Corpus"):
        as_corpus(None)
