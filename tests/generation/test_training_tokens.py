"""The data of a generator: from a corpus, or from an existing token dataset."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from makers.audio import make_tone
from makers.codecs import make_encodec
from makers.paths import ALLISON
from tokgen.audio.files import write_audio
from tokgen.generation.training_tokens import open_generator_data, open_training_tokens
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec

QUIET = {"workers": 1, "progress": False}


@pytest.fixture(scope="module")
def made(tiny_corpus: Path, tiny_codec: StftCodec, tmp_path_factory) -> Path:
    """`tiny_corpus` tokenized, with transcripts. Tests must not change it."""
    out = tmp_path_factory.mktemp("made") / "tokens"
    tokenize_corpus(tiny_corpus, tiny_codec, out, **QUIET)
    return out


def test_tokens_give_the_data_of_their_corpus(
    made: Path, tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    corpus = str(tiny_corpus)
    options = {"n_test": 9, "with_text": True}
    a = open_generator_data(None, corpus, tiny_codec, tmp_path, "mfcc", **options)
    b = open_generator_data(made, corpus, tiny_codec, tmp_path / "b", "mfcc", **options)
    assert a.held_out.fingerprint == b.held_out.fingerprint
    assert a.tokens.splits["train"]["codes"] == b.tokens.splits["train"]["codes"]
    assert not (tmp_path / "b").exists()
    c = open_generator_data(made, None, tiny_codec, tmp_path, "mfcc", **options)
    assert c.corpus is None and c.held_out.ids == a.held_out.ids
    for waveform, decoded in zip(c.held_out.originals, c.held_out.resynthesis(), strict=True):
        assert waveform.equal(decoded)


def test_a_small_folder_gives_the_data_of_its_tokens(tiny_codec: StftCodec, tmp_path: Path) -> None:
    for i in range(5):
        write_audio(tmp_path / "few" / f"{i}.wav", make_tone(0.6, i), 16000)
    few, cache = str(tmp_path / "few"), tmp_path / "cache"
    tokenize_corpus(few, tiny_codec, tmp_path / "tokens", **QUIET)
    a = open_generator_data(None, few, tiny_codec, cache, "mfcc", n_test=9)
    b = open_generator_data(tmp_path / "tokens", few, tiny_codec, cache, "mfcc", n_test=9)
    assert len(a.held_out) == 1 and a.held_out.fingerprint == b.held_out.fingerprint
    assert a.held_out.originals[0].equal(b.held_out.originals[0])
    for name in ("train", "validation", "test"):
        assert a.tokens.splits[name]["id"] == b.tokens.splits[name]["id"]
    assert not set(a.held_out.ids) & set(a.tokens.splits["train"]["id"])
    separate = open_generator_data(
        None, few, tiny_codec, cache, "mfcc", n_test=9, test_corpus=str(ALLISON)
    )
    assert len(separate.tokens.splits["train"]) == 5  # nothing is held out


def test_a_folder_too_small_to_split_is_refused_before_it_is_tokenized(
    tiny_codec: StftCodec, tmp_path: Path
) -> None:
    for i in range(2):
        write_audio(tmp_path / "few" / f"{i}.wav", make_tone(0.6, i), 16000)
    few = str(tmp_path / "few")
    for options, message in (
        ({}, "few has no test split, and only 2 clips in 'train': give at least 3, add a metadata"),
        ({"test_corpus": few}, "few has no test split: it has 2 train; set test_corpus"),
    ):
        with pytest.raises(ValueError, match=message):
            open_generator_data(None, few, tiny_codec, tmp_path / "c", "mfcc", n_test=1, **options)
    assert not (tmp_path / "c").exists()


def test_only_utterances_with_a_transcript_are_spoken(
    made: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    splits = load_tokens(made).splits
    first = splits["test"]["id"][0]
    splits["test"] = splits["test"].map(lambda row: {"text": None if row["id"] == first else "x"})
    splits.save_to_disk(str(tmp_path / "some"))
    options = {"n_test": 1, "with_text": True}
    found = open_generator_data(tmp_path / "some", None, tiny_codec, tmp_path, "mfcc", **options)
    assert found.held_out.ids == [splits["test"]["id"][1]] and found.held_out.texts == ["x"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "have no transcripts in their train split, and speech from text needs them: tok"),
        ("test", "no test utterance of .* with a transcript to generate"),
    ],
)
def test_missing_transcripts_are_named(
    made: Path, tiny_codec: StftCodec, tmp_path: Path, split: str, message: str
) -> None:
    splits = load_tokens(made).splits
    splits[split] = splits[split].map(lambda row: {"text": " "})
    splits.save_to_disk(str(tmp_path / "silent"))
    open_generator_data(tmp_path / "silent", None, tiny_codec, tmp_path, "mfcc", n_test=1)
    with pytest.raises(ValueError, match=message):
        open_generator_data(
            tmp_path / "silent", None, tiny_codec, tmp_path, "mfcc", n_test=1, with_text=True
        )


def test_side_information_is_not_in_a_text(tiny_corpus: Path, tmp_path: Path) -> None:
    codec = make_encodec("encodec-48k")
    tokenize_corpus(tiny_corpus, codec, tmp_path / "side", **QUIET)
    with pytest.raises(ValueError, match=r"side information \['scales'\], which a text does not"):
        open_generator_data(
            tmp_path / "side", None, codec, tmp_path, "mfcc", n_test=1, with_text=True
        )


def test_a_corpus_is_refused_before_it_is_tokenized(tiny_corpus: Path, tmp_path: Path) -> None:
    options = {"n_test": 1, "with_text": True}
    cache, codec = tmp_path / "cache", make_encodec("encodec-48k")
    with pytest.raises(ValueError, match=r"side information \['scales'\], which a text does not"):
        open_generator_data(None, str(tiny_corpus), codec, cache, "mfcc", **options)
    shutil.copytree(tiny_corpus, tmp_path / "c")
    table = (tmp_path / "c" / "metadata.csv").read_text(encoding="utf-8").splitlines()
    for i, line in enumerate(table):
        if line.endswith(",train"):
            table[i] = f"{line.split(',')[0]}, ,,train"
    (tmp_path / "c" / "metadata.csv").write_text("\n".join(table), encoding="utf-8")
    with pytest.raises(ValueError, match="no transcripts in its train split for speech from text"):
        open_generator_data(None, str(tmp_path / "c"), codec, cache, "mfcc", **options)
    assert not cache.exists()


def test_tokens_without_a_train_split(made: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    splits = load_tokens(made).splits
    del splits["train"]
    splits.save_to_disk(str(tmp_path / "rest"))
    with pytest.raises(ValueError, match=r"have no train split: \['test', 'validation'\]"):
        open_training_tokens(tmp_path / "rest", tiny_codec, None)


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give tokens, or both of these"):
        open_generator_data(None, None, None, tmp_path, None, n_test=1)
