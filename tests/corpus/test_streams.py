from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.corpora import audio_bytes, run, save, table, tone, upload
from tokgen.audio.files import AudioError
from tokgen.corpus.listed import open_corpus
from tokgen.corpus.streams import StreamCorpus, stream_corpus


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three Parquet files in two splits."""
    folder = tmp_path / "tables"
    folder.mkdir()
    n = 20
    rows = table(tmp_path, n, sentence=[f"text {i}" for i in range(n - 1)] + [None])
    pq.write_table(rows.slice(0, 8), folder / "train-0.parquet", row_group_size=3)
    pq.write_table(rows.slice(8, 8), folder / "train-1.parquet")
    pq.write_table(rows.slice(16), folder / "test-0.parquet")
    return folder


def stream(folder: Path) -> dict[str, datasets.IterableDataset]:
    files = {"train": str(folder / "train-*.parquet"), "test": str(folder / "test-*.parquet")}
    return datasets.load_dataset("parquet", data_files=files, streaming=True)


def read(corpus: StreamCorpus) -> list:
    return [entry for unit in corpus.units() for entry in corpus.read_unit(unit)]


def about(entries):
    return sorted((e.id, e.text, e.speaker, e.split) for e in entries)


@pytest.mark.parametrize("kind", ["path", "memory"])
def test_a_stream_has_the_utterances_of_the_listed_corpus(folder, kind):
    source = folder if kind == "path" else upload(folder, f"memory://{uuid.uuid4().hex}/tables")
    listed, streamed = open_corpus(source), open_corpus(source, streaming=True)
    assert isinstance(streamed, StreamCorpus) and streamed.name == listed.name
    assert (streamed.n_entries, streamed.is_local) == (None, False)
    assert [unit.index for unit in streamed.units()] == [0, 1, 2]
    assert about(read(streamed)) == about(listed.entries)
    ours, theirs = ({u.id: u.waveform for u in run(c)[0]} for c in (listed, streamed))
    assert len(ours) == 20
    assert all(ours[id].equal(theirs[id]) for id in ours)
    one = f"{source}/train-1.parquet"
    assert about(read(open_corpus(one, streaming=True))) == about(open_corpus(one).entries)


def test_units_are_shards_and_survive_pickling(folder):
    corpus = open_corpus(folder, streaming=True)
    units = corpus.units(rows=1)
    sizes = [len(list(corpus.read_unit(unit))) for unit in units]
    assert sizes == [4, 8, 8]
    again = pickle.loads(pickle.dumps(corpus))
    assert list(again.read_unit(units[1])) == list(corpus.read_unit(units[1]))
    entry = pickle.loads(pickle.dumps(next(iter(corpus.read_unit(units[2])))))
    assert corpus.load(entry, 16000).waveform.shape == (1, 8000)
    with again.open(entry, 16000) as blocks:
        assert sum(block.shape[-1] for block in blocks) == 8000


def test_streaming_datasets_of_the_user(folder):
    corpus = stream_corpus(stream(folder), "mine")
    assert corpus.name == "mine" and len(corpus.units()) == 3
    assert about(read(corpus)) == about(open_corpus(folder).entries)
    alone = stream_corpus(stream(folder)["test"], "mine")
    assert {entry.split for entry in read(alone)} == {"test"}


def test_audio_features_are_not_decoded(tmp_path):
    cells = [{"bytes": audio_bytes(tmp_path, 300), "path": "a.flac"}]
    pq.write_table(pa.table({"audio": cells, "n": [1]}), tmp_path / "x.parquet")
    features = datasets.Features({"audio": datasets.Audio(), "n": datasets.Value("int64")})
    dataset = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "x.parquet"), features=features, streaming=True
    )
    corpus = stream_corpus(dataset, "x")
    (entry,) = read(corpus)
    assert entry.audio == cells[0]
    assert corpus.load(entry, 16000).waveform.shape == (1, 8000)


def test_a_generator_without_features(tmp_path):
    def rows():
        for i in range(20):
            yield {"audio": {"bytes": data, "path": None}, "text": str(i)}

    data = audio_bytes(tmp_path, 300)
    corpus = stream_corpus(datasets.IterableDataset.from_generator(rows), "x")
    assert [e.id[-15:] for e in read(corpus)] == [f"of-00001-{i:06d}" for i in range(20)]
    assert [e.text for e in read(corpus)] == [str(i) for i in range(20)]


def test_selecting(folder):
    corpus = open_corpus(folder, streaming=True)
    train = open_corpus(folder, streaming=True, split="train")
    assert len(train.units()) == 2 and len(read(train)) == 16
    assert about(read(corpus.select("test"))) == about(open_corpus(folder, split="test").entries)
    with pytest.raises(ValueError, match=r"no split 'tset'; it has 'test', 'train'"):
        corpus.select("tset")


def test_splits_by_row(tmp_path):
    rows = table(tmp_path, 4, split=["train", "dev", "train", None])
    pq.write_table(rows, tmp_path / "x.parquet")
    corpus = open_corpus(tmp_path / "x.parquet", streaming=True)
    assert [e.split for e in read(corpus)] == [
        e.split for e in open_corpus(tmp_path / "x.parquet").entries
    ]
    assert [e.id for e in read(corpus.select("validation"))] == ["c1"]


def test_durations_are_measured_while_reading(tmp_path):
    clips = [save(tmp_path / "t.flac", tone(s)).read_bytes() for s in (0.3, 0.6, 0.9)]
    cells = [*({"bytes": data, "path": None} for data in clips), {"bytes": b"junk", "path": None}]
    pq.write_table(pa.table({"audio": cells}), tmp_path / "x.parquet")
    corpus = open_corpus(tmp_path / "x.parquet", streaming=True, min_seconds=0.5, max_seconds=0.8)
    assert [e.id for e in read(corpus)] == ["x.parquet-000001", "x.parquet-000003"]
    assert read(corpus.select(max_seconds=0.0))[0].id == "x.parquet-000003"


def test_unusable_rows_are_reported_when_they_are_loaded(tmp_path):
    good = {"bytes": audio_bytes(tmp_path, 300), "path": None}
    outside = str(save(tmp_path / "outside.wav"))
    cells = {
        "good": good,
        "again": good,
        "wordless": good,
        "path": {"bytes": None, "path": outside},
        "hollow": {"bytes": None, "path": None},
        "junk": {"bytes": b"junk" * 99, "path": "j.wav"},
    }
    ids = ["good", "good", *list(cells)[2:]]
    texts = ["a", "b", None, "d", "e", "f"]
    rows = pa.table({"id": ids, "audio": list(cells.values()), "text": texts})
    pq.write_table(rows, tmp_path / "x.parquet")
    corpus = open_corpus(tmp_path / "x.parquet", streaming=True, require_text=True)
    utterances, rejected = run(corpus)
    assert [u.id for u in utterances] == ["good"]
    found = {r.source: r.reason for r in rejected}
    assert "duplicate id 'good'" in found["x.parquet row 1 (good)"]
    assert "missing transcript" in found["x.parquet row 2 (wordless)"]
    assert "instead of audio; it is not followed" in found["x.parquet row 3 (path)"]
    assert "no audio" in found["x.parquet row 4 (hollow)"]
    assert "not audio" in found["x.parquet row 5 (junk)"]
    assert len(utterances) + len(rejected) == len(cells)


def test_a_damaged_shard_is_reported_and_the_others_are_read(folder):
    corpus = open_corpus(folder, streaming=True)
    data = (folder / "train-0.parquet").read_bytes()
    (folder / "train-0.parquet").write_bytes(data[: len(data) // 2])
    utterances, rejected = run(corpus)
    assert len(utterances) == 12
    assert [r.source for r in rejected] == ["train-0.parquet"]
    assert "the shard is damaged" in rejected[0].reason


def test_a_failed_connection_stops_the_run():
    def rows():
        yield {"audio": {"bytes": b"x", "path": None}}
        raise ConnectionError("gone")

    corpus = stream_corpus(datasets.IterableDataset.from_generator(rows), "x")
    with pytest.raises(ConnectionError, match="gone"):
        run(corpus)


def test_the_fingerprint_follows_content_and_selection(folder):
    def fingerprint(**selection) -> str:
        return open_corpus(folder, streaming=True, **selection).fingerprint

    base = fingerprint()
    pickled = pickle.dumps(open_corpus(folder, streaming=True))
    assert base == fingerprint() == pickle.loads(pickled).fingerprint
    selections = [{"split": "test"}, {"min_seconds": 1.0}, {"require_text": True}]
    others = {fingerprint(**selection) for selection in selections}
    rows = pq.read_table(folder / "test-0.parquet")
    pq.write_table(rows.slice(1), folder / "test-0.parquet")
    others.add(fingerprint())
    assert len(others | {base}) == 5
    versions = {stream_corpus(stream(folder), "x", version=v).fingerprint for v in ("1", "1", "2")}
    assert len(versions) == 2


def test_sources_that_cannot_be_streamed(tmp_path):
    with pytest.raises(ValueError, match=r"no \.parquet files: open it without streaming"):
        open_corpus(tmp_path, streaming=True)
    with pytest.raises(FileNotFoundError, match="owner/name"):
        open_corpus("nothing-here", streaming=True)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no column 'audio'"):
        open_corpus(tmp_path, streaming=True)
    corpus = open_corpus(save(tmp_path / "clips" / "a.wav").parent)
    with pytest.raises(TypeError, match="read it with read_unit"):
        stream_of_one = stream_corpus(
            datasets.Dataset.from_dict({"audio": [{"bytes": b"x"}]}).to_iterable_dataset(), "x"
        )
        stream_of_one.load(corpus.entries[0], 16000)


def test_errors_name_the_entry(folder):
    entry = read(open_corpus(folder, streaming=True))[0]
    corpus = open_corpus(folder, streaming=True)
    corpus.longest_seconds = 0.1
    with pytest.raises(AudioError, match=r"test-0.parquet row 0 \(c16\).*limit is 0.1 s"):
        corpus.load(entry, 16000)
