"""Listed corpora: selections, limits and fingerprints."""

from __future__ import annotations

import pickle
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.corpora import run, save, table, tone
from makers.paths import ALLISON
from tokgen.audio.files import AudioError
from tokgen.corpus.entries import Entry
from tokgen.corpus.folders import FileStore
from tokgen.corpus.listed import Corpus, as_corpus, open_corpus
from tokgen.corpus.reading import Unit


def test_sources_that_are_not_a_corpus(tmp_path):
    with pytest.raises(ValueError, match="holds no audio files"):
        open_corpus(tmp_path)
    pq.write_table(pa.table({"codes": [[1, 2]], "id": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"no column 'audio'.*its columns are codes, id"):
        open_corpus(tmp_path)
    with pytest.raises(ValueError, match=r"not \.parquet"):
        open_corpus(save(tmp_path / "a.wav"))


def test_select(tmp_path):
    for i, seconds in enumerate((0.2, 0.5, 1.0, 2.0)):
        save(tmp_path / f"{i}.wav", tone(seconds))
    (tmp_path / "bad.wav").write_text("bad")
    corpus = open_corpus(tmp_path)
    assert [e.seconds for e in corpus.entries] == [0.2, 0.5, 1.0, 2.0, None]
    middle = corpus.select(min_seconds=0.5, max_seconds=1)
    assert [e.id for e in middle.entries] == ["1", "2", "bad"]
    assert [e.id for e in corpus.select(n=2).entries] == ["0", "1"]
    assert len(open_corpus(tmp_path, min_seconds=1.5)) == 2
    with pytest.raises(ValueError, match="n = 0"):
        corpus.select(n=0)
    with pytest.raises(AudioError, match="not audio"):
        corpus.load(middle.entries[-1], 16000)


def test_a_corpus_given_as_an_object_or_by_its_source(tmp_path):
    save(tmp_path / "a.wav")
    save(tmp_path / "b.wav", tone(2))
    corpus = open_corpus(tmp_path)
    for given in (tmp_path, corpus):
        chosen = as_corpus(given, max_seconds=1, language="de")
        assert [(e.id, e.language) for e in chosen.entries] == [("a", "de")]
    assert {e.language for e in corpus.entries} == {None}
    assert len(as_corpus(tmp_path, follow_links=True)) == 2
    with pytest.raises(ValueError, match="follow_links: give it to open_corpus"):
        as_corpus(corpus, follow_links=True)


def test_select_measures_rows_without_duration(tmp_path):
    clips = [save(tmp_path / "t.flac", tone(s)).read_bytes() for s in (0.3, 0.6, 0.9)]
    cells = [{"bytes": data, "path": None} for data in clips]
    pq.write_table(pa.table({"audio": cells}), tmp_path / "x.parquet")
    corpus = open_corpus(tmp_path / "x.parquet")
    assert [e.seconds for e in corpus.entries] == [None] * 3
    assert [e.id for e in corpus.entries] == [f"x.parquet-{i:06d}" for i in range(3)]
    assert [e.seconds for e in corpus.select(min_seconds=0.5).entries] == [0.6, 0.9]


def test_longest_seconds_is_a_setting(tmp_path):
    save(tmp_path / "a.wav", tone(2))
    corpus = open_corpus(tmp_path)
    corpus.longest_seconds = 1.5
    utterances, rejected = run(corpus)
    assert utterances == []
    assert "2.0 s long: the limit is 1.5 s" in rejected[0].reason


def test_fingerprint_follows_content(tmp_path):
    def build(name: str, hertz: float = 300, text: str = "hello", id: str = "a") -> str:
        save(tmp_path / name / f"{id}.wav", tone(hertz=hertz))
        (tmp_path / name / "metadata.csv").write_text(f"file_name,text\n{id}.wav,{text}\n")
        return open_corpus(tmp_path / name).fingerprint

    base = build("one")
    others = {build("three", hertz=301), build("four", text="bye"), build("five", id="b")}
    assert len(base) == 64
    assert build("two") == base
    assert len(others | {base}) == 4


def test_digests_change_with_an_entry(tiny_corpus, tmp_path):
    shutil.copytree(tiny_corpus, tmp_path / "x")
    before = dict(open_corpus(tmp_path / "x").digests)
    assert list(before) == [entry.id for entry in open_corpus(tmp_path / "x").entries]
    shutil.copy(tmp_path / "x" / "c.wav", tmp_path / "x" / "b.wav")
    after = dict(open_corpus(tmp_path / "x").digests)
    assert [id for id in before if before[id] != after[id]] == ["b"]


def test_fingerprint_of_tables(tmp_path):
    rows = table(tmp_path, 3)
    pq.write_table(rows, tmp_path / "x.parquet")
    pq.write_table(rows, tmp_path / "y.parquet", row_group_size=1, compression="gzip")
    corpus = open_corpus(tmp_path / "x.parquet")
    assert corpus.fingerprint == open_corpus(tmp_path / "y.parquet").fingerprint
    assert corpus.fingerprint != corpus.select(n=2).fingerprint


def test_the_embedded_corpus():
    corpus = open_corpus(ALLISON, require_text=True)
    assert corpus.splits == {"test": 18, "train": 163, "validation": 9}
    assert corpus.rejections == []
    # Runs of earlier versions can only be resumed if the fingerprint stays the same.
    assert corpus.fingerprint[:16] == "fa838ddf2627ae16"
    assert sum(e.seconds or 0 for e in corpus.entries) / 60 == pytest.approx(12.53, abs=0.01)
    assert all(2 <= (e.seconds or 0) <= 15 for e in corpus.entries)
    assert pq.ParquetFile(ALLISON / "allison.parquet").num_row_groups == 6
    assert pq.read_schema(ALLISON / "allison.parquet").names == [
        *("id", "audio", "text", "duration", "split", "speaker", "language", "license")
    ]
    utterances, rejected = run(corpus.select("test"))
    assert (len(utterances), rejected) == (18, [])
    assert {u.speaker for u in utterances} == {"Allison Smith"}
    for utterance, entry in zip(utterances, corpus.select("test").entries, strict=True):
        assert utterance.waveform.shape[-1] / 16000 == pytest.approx(entry.seconds, abs=1e-3)


def corpus_of(*seconds: float | None) -> Corpus:
    """Return a corpus of entries with these durations, without audio."""
    entries = [Entry(str(i), str(i), None, None, "train", s) for i, s in enumerate(seconds)]
    return Corpus("no audio", entries, [], FileStore([]))


def test_units_end_after_rows_or_known_seconds():
    units = corpus_of(*[None] * 5).units(rows=2)
    assert units == [Unit(0, 0, 2), Unit(1, 2, 4), Unit(2, 4, 5)]
    units = corpus_of(4.0, 5.0, 1.0, 30.0, 1.0, None, 1.0).units(seconds=10.0)
    assert [(unit.start, unit.stop) for unit in units] == [(0, 3), (3, 4), (4, 7)]
    assert corpus_of().units() == []
    with pytest.raises(ValueError, match="rows = 0"):
        corpus_of(1.0).units(rows=0)
    with pytest.raises(ValueError, match="seconds = 0"):
        corpus_of(1.0).units(seconds=0.0)


def test_units_hold_every_entry_once_and_in_order(tiny_corpus):
    corpus = open_corpus(tiny_corpus)
    units = corpus.units(rows=3)
    assert [unit.index for unit in units] == list(range(4))
    assert [e for unit in units for e in corpus.read_unit(unit)] == corpus.entries
    assert pickle.loads(pickle.dumps(corpus)).units(rows=3) == units
