"""The table of published codecs: its numbers agree with each other, and it says what can be run."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

import tokgen.zoo.published
from tokgen.zoo.lookup import list_codecs
from tokgen.zoo.names import check_name
from tokgen.zoo.published import (
    TABLE,
    Catalogue,
    PublishedList,
    _installed,
    list_published,
    read_published,
)
from tokgen.zoo.registry import ADAPTERS
from tokgen.zoo.trials import Trial, record_trial

CODECS = read_published()


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: c.id)
def test_the_numbers_of_a_row_agree(codec):
    levels = re.findall(r"(\d+) x (\d+)", codec.codebooks)
    assert bool(levels) == (codec.adapter != "ffmpeg") and codec.sample_rate and codec.hop_length
    bits = sum(int(n) * math.log2(int(size)) for n, size in levels)
    if levels:
        assert codec.kbps == pytest.approx(bits * codec.frame_rate / 1000, rel=0.01)
    if "/" in codec.id and not (codec.folder or codec.converted):
        check_name(codec.id)


def test_the_ids_are_different():
    assert len({c.id for c in CODECS}) == len(CODECS)


def test_the_table_holds_every_row_of_table_1():
    found = list_published(paper_only=True)
    assert {c.paper for c in found} == {
        "MP3", "OPUS", "DAC", "Encodec", "SpeechTokenizer", "FACodec", "Spectral-Codec", "ESC",
    }  # fmt: skip
    rates = {name: {c.sample_rate for c in found if c.paper == name} for name in ("DAC", "Encodec")}
    assert rates == {"DAC": {44100, 24000, 16000}, "Encodec": {48000, 24000, 16000}}


def test_every_adapter_of_published_codecs_is_in_the_table():
    embedded = {"tokgen_stft_codec", "tokgen_offline_codec"}
    assert {a.model_type for a in ADAPTERS} - embedded <= {c.adapter for c in CODECS}


def test_a_family_without_an_adapter_says_so():
    codec = next(c for c in CODECS if c.adapter == "stable_codec")
    assert (codec.runs_with, codec.run) == ("no adapter", "not run")


def test_missing_libraries_and_folders_are_shown():
    codec = next(c for c in CODECS if c.id == "fnlp/SpeechTokenizer")
    assert replace(codec, installed=False).runs_with == "speechtokenizer, not installed"
    assert replace(codec, installed=True).runs_with == "speechtokenizer, converted"
    esc = next(c for c in CODECS if c.id == "ESC-Base")
    assert esc.runs_with == "tokgen, from a folder"
    assert not _installed("transformers", "no_such_network") and not _installed("no_library", "x")


def test_networks_of_transformers_are_found():
    for adapter in ("dac", "voicecraft_encodec", "xcodec2", "mimi"):
        assert _installed("transformers", adapter), adapter


def test_runs_are_shown(monkeypatch, tmp_path):
    trial = Trial("Linux x86_64 cuda", "abc", "transformers 5.0", "0.1", "2.11", 1.0, 2.0)
    record_trial("kyutai/mimi", trial, tmp_path / "trials.json")
    failed = replace(trial, machine="Darwin arm64 mps", problem="silence")
    record_trial("kyutai/mimi", failed, tmp_path / "trials.json")
    read = tokgen.zoo.published.read_trials
    monkeypatch.setattr(tokgen.zoo.published, "read_trials", lambda: read(tmp_path / "trials.json"))
    mimi = next(c for c in list_published() if c.id == "kyutai/mimi")
    assert mimi.run == "Linux x86_64 cuda; Darwin arm64 mps: failed (silence)"
    found = json.loads(json.dumps(PublishedList([mimi]).to_dict()))["published"][0]
    assert found["trials"][0]["revision"] == "abc" and found["frame_rate"] == 12.5


def test_the_catalogue_shows_the_zoo_as_before():
    catalogue = Catalogue(list_codecs(), list_published())
    assert str(catalogue).startswith(str(list_codecs()))
    assert catalogue.to_dict()["codecs"] == list_codecs().to_dict()["codecs"]
    assert len(catalogue.records()) == len(list_codecs()) + len(CODECS)


def test_a_wrong_row_is_named(tmp_path: Path):
    text = TABLE.read_text().replace('id = "kyutai/mimi", sample_rate', 'id = "kyutai/mimi", rate')
    (tmp_path / "table.toml").write_text(text)
    with pytest.raises(ValueError, match=r"kyutai/mimi: .*rate"):
        read_published(tmp_path / "table.toml")
