"""Several corpora as one, and parts of a corpus by language or speaker."""

from __future__ import annotations

import pickle

import pyarrow.parquet as pq
import pytest

from makers.corpora import run, save, table
from tokgen.corpus.listed import as_corpus, open_corpus
from tokgen.corpus.settings import CorpusSettings, check_corpus, split_sources


@pytest.fixture
def folder(tmp_path):
    """Two Parquet files with the same ids, and a folder of audio."""
    for name, language in (("prompts", "en-US"), ("ru", "ru")):
        columns = {"id": ["x", "y"], "speaker": [f"{name} 1", f"{name} 2"], "split": ["test"] * 2}
        rows = table(tmp_path, 2, **columns, language=[language] * 2)
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    save(tmp_path / "music/test/x.wav")
    (tmp_path / "scratch.flac").unlink(missing_ok=True)
    return tmp_path


def test_corpora_are_joined(folder):
    source = f"{folder}/prompts.parquet,{folder}/ru.parquet,{folder}/music"
    corpus = open_corpus(source)
    ids = [e.id for e in corpus.entries]
    assert ids == ["x", "y", "ru/x", "ru/y", "test/x"] and corpus.name == "prompts+ru+music"
    loaded, rejected = run(pickle.loads(pickle.dumps(corpus)))
    assert [u.id for u in loaded] == ids and not rejected
    alone = [
        *run(open_corpus(folder / "prompts.parquet"))[0],
        *run(open_corpus(folder / "ru.parquet"))[0],
        *run(open_corpus(folder / "music"))[0],
    ]
    assert all(a.waveform.equal(b.waveform) for a, b in zip(loaded, alone, strict=True))
    parts = [folder / "prompts.parquet", folder / "ru.parquet"]
    assert [e.id for e in open_corpus(parts, split="test").entries] == ids[:4]
    prints = [open_corpus(p).fingerprint for p in (source, parts, parts[::-1], parts[0])]
    assert len(set(prints)) == 4 and open_corpus(source).fingerprint == prints[0]
    assert as_corpus(parts).fingerprint == prints[1]
    with pytest.raises(ValueError, match="only one as a stream"):
        open_corpus(parts, streaming=True)


def test_three_corpora_with_one_name_and_id(folder):
    same = [folder / "ru.parquet"] * 3
    assert [e.id for e in open_corpus(same).entries] == [
        "x", "y", "ru/x", "ru/y", "ru-2/x", "ru-2/y"
    ]  # fmt: skip


def test_a_path_with_a_comma_is_one_corpus(tmp_path):
    path = save(tmp_path / "a,b/x.wav").parent
    assert split_sources(str(path)) == [str(path)]
    assert len(open_corpus(str(path))) == 1
    assert split_sources("a,vctk:b") == ["a", "vctk:b"]
    check_corpus(f"{path},ljspeech:{path}".replace(str(path), str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        check_corpus(f"{tmp_path},{tmp_path}/missing")


def test_clips_of_a_language_or_a_speaker(folder):
    parts = [folder / "prompts.parquet", folder / "ru.parquet"]
    for where, ids in (
        ("language=en", ["x", "y"]),
        ("language=EN_us", ["x", "y"]),
        ("language=ru,en", ["x", "y", "ru/x", "ru/y"]),
        ("speaker=ru 2,prompts 1", ["x", "ru/y"]),
    ):
        assert [e.id for e in open_corpus(parts, where=where).entries] == ids
    assert len(as_corpus(open_corpus(parts), where="language=ru")) == 2
    stream = open_corpus(parts[0], streaming=True, where="speaker=prompts 2")
    assert [u.id for u in run(stream)[0]] == ["y"]
    assert stream.fingerprint != open_corpus(parts[0], streaming=True).fingerprint
    with pytest.raises(ValueError, match="has no language de; it has en-US, ru"):
        open_corpus(parts, where="language=de")
    for wrong in ("en", "language=", "size=3"):
        with pytest.raises(ValueError, match="write language=VALUE or speaker=VALUE"):
            CorpusSettings(corpus="x", where=wrong)
