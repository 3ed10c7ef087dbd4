"""Tokenize a corpus and a codec that are given by name, and the report of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from makers.tokens import rows_of
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus

ONE = {"workers": 1, "progress": False}


def test_names_and_objects_make_the_same_dataset(
    tiny_corpus: Path, tiny_codec_folder: Path, tiny_codec, tmp_path: Path
) -> None:
    limits = {"split": "train", "min_seconds": 0.8}
    by_name = tokenize_corpus(
        str(tiny_corpus), str(tiny_codec_folder), tmp_path / "a", device="cpu", **limits, **ONE
    )
    by_object = tokenize_corpus(
        open_corpus(tiny_corpus, **limits), tiny_codec, str(tmp_path / "b"), **ONE
    )
    assert by_name.n_rows == by_object.n_rows > 0
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
    plain = tmp_path / "plain"
    tokenize_corpus(tiny_corpus, tiny_codec, plain, conditioning="none", **limits, **ONE)
    assert load_tokens(plain).provenance.conditioning is None


def test_the_report_says_what_was_made(tiny_corpus: Path, tiny_codec, tmp_path: Path) -> None:
    out = tmp_path / "t"
    tokenize_corpus(tiny_corpus, tiny_codec, out, **ONE)
    report = tokenize_corpus(tiny_corpus, tiny_codec, out, **ONE)
    assert str(report).startswith(f"{out}: {report.n_rows} rows ({report.n_rows} of them from")
    assert report.to_dict()["out"] == str(out)
    frame = report.to_frame()
    assert frame["n_rows"].tolist() == [report.n_rows]
    assert frame["precision"].tolist() == ["float32"]


def test_settings_of_opening_are_not_for_open_corpora(
    tiny_corpus: Path, tiny_codec, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"split: only for a corpus .* give it to open_corpus"):
        tokenize_corpus(open_corpus(tiny_corpus), tiny_codec, tmp_path / "t", split="train", **ONE)


def test_a_device_this_machine_lacks_is_refused(
    tiny_corpus: Path, tiny_codec_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"device 'cuda:99': this machine has"):
        tokenize_corpus(tiny_corpus, tiny_codec_folder, tmp_path / "t", device="cuda:99", **ONE)
