"""Descriptions of codecs as results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from makers.codecs import make_causal, save_codec
from tokgen.zoo.cards import CodecList, describe_codec
from tokgen.zoo.lookup import list_codecs


def test_the_list_is_a_list_and_a_result(tiny_codec_folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    found = list_codecs()
    assert [card.name for card in found] == sorted(card.name for card in found)
    assert len(found.to_frame()) == len(found)
    assert found.to_frame()["sample_rate"].dtype == int
    assert str(found).splitlines()[0].split()[:2] == ["name", "rate"]
    assert found._repr_html_().count("<tr>") == len(found) + 1
    assert json.loads(json.dumps(found.to_dict()))["codecs"][0]["name"] == found[0].name


def test_an_empty_list_says_where_it_looked() -> None:
    assert str(CodecList((), "no codecs in /zoo")) == "no codecs in /zoo"


def test_a_codec_is_described(tiny_codec) -> None:
    facts = describe_codec(tiny_codec)
    assert facts.n_parameters == sum(p.numel() for p in tiny_codec.model.parameters())
    assert facts.to_dict()["bitrate"] == pytest.approx(tiny_codec.spec.bitrate)
    assert "sample rate  16000 Hz" in str(facts)


def test_the_latency_of_causal_codecs_is_stated(
    tiny_codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_codec(tiny_codec, tmp_path / "ahead")
    save_codec(make_causal(), tmp_path / "live")
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path))
    found = {card.name: card for card in list_codecs()}
    lines = {line.split()[0]: line for line in str(list_codecs()).splitlines()}
    assert " 60 ms " in lines["live"] and " ms " not in lines["ahead"]
    assert found["live"].spec.latency_ms == 60
    records = {record["name"]: record for record in list_codecs().records()}
    assert records["live"]["latency_ms"] == 60 and records["ahead"]["latency_ms"] is None
    assert "latency      60 ms" in str(describe_codec(make_causal()))
    assert "latency      not causal" in str(describe_codec(tiny_codec))
