"""Joined corpora and parts of corpora in the verbs that read them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from makers.audio import make_tone
from makers.corpora import table
from tokgen.audio.files import write_audio
from tokgen.cli import main as cli
from tokgen.tokens.dataset import load_tokens


@pytest.fixture
def corpora(tiny_codec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """English clips, and Russian ones with the same ids."""
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    for name, language in (("prompts", "en"), ("ru", "ru")):
        rows = table(tmp_path, 2, id=["x", "y"], language=[language] * 2, text=["one", "two"])
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    return f"{tmp_path}/prompts.parquet,{tmp_path}/ru.parquet"


def call(*args: object) -> None:
    assert cli.main([str(arg) for arg in args]) == 0


def test_drift_of_joined_corpora(corpora, tmp_path):
    flags = ["--codec", "tiny", "--corpus", corpora, "--passes", 2, "--clip_seconds", 0.3]
    call("drift", *flags, "--samples", 0, "--out", tmp_path / "drift")
    found = json.loads((tmp_path / "drift/drift.json").read_text())
    assert found["settings"]["corpus"] == "prompts+ru" and found["settings"]["clips"] == 4
    call("drift", *flags, "--where", "language=ru", "--samples", 1, "--out", tmp_path / "ru")
    assert json.loads((tmp_path / "ru/drift.json").read_text())["settings"]["clips"] == 2
    assert [path.name for path in (tmp_path / "ru/audio/tiny").iterdir()] == ["ru_x"]


def test_score_of_joined_corpora(corpora, tmp_path, capsys):
    flags = ["--codec", "tiny", "--metrics", "si_sdr", "--workers", 0]
    call("score", *flags, "--corpus", corpora, "--out", tmp_path / "all.json")
    call("score", *flags, "--corpus", corpora, "--where", "language=en")
    out = capsys.readouterr().out
    assert "prompts+ru" in (tmp_path / "all.json").read_text() and "n" in out


def test_cer_does_not_apply_to_other_languages(corpora, capsys):
    flags = ["--codec", "tiny", "--metrics", "cer", "--asr", "moonshine", "--workers", 0]
    call("score", *flags, "--corpus", corpora, "--where", "language=ru")
    reason = "the recogniser knows en, but the language is ru"
    assert f"CER does not apply to 2 of 2 clips: {reason}" in capsys.readouterr().out


def test_tokens_of_a_published_corpus_by_speaker(tiny_codec_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    for i, split in enumerate(("train-clean-100", "train-clean-100", "test-clean")):
        clip = tmp_path / f"LibriTTS/{split}/{i}/5/{i}_5_000000_000000.wav"
        write_audio(clip, make_tone(0.6, i), 16000)
        clip.with_suffix(".normalized.txt").write_text(f"clip {i}")
    flags = ["--codec", "tiny", "--workers", 1, "--precision", "float32"]
    flags += ["--corpus", f"libritts:{tmp_path}/LibriTTS", "--where", "speaker=1,2"]
    call("tokenize", *flags, "--out", tmp_path / "all")
    splits = load_tokens(tmp_path / "all").splits
    assert {name: rows["id"] for name, rows in splits.items()} == {
        "train_clean_100": ["1_5_000000_000000"],
        "test_clean": ["2_5_000000_000000"],
    }
    call("tokenize", *flags, "--split", "train", "--out", tmp_path / "train")
    (row,) = load_tokens(tmp_path / "train").splits["train"]
    assert (row["id"], row["speaker"], row["text"]) == ("1_5_000000_000000", "1", "clip 1")
