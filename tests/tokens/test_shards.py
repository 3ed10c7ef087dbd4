from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from makers.codecs import make_stft_codec
from makers.processes import fork_context
from makers.tokens import rows_of
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import open_corpus
from tokgen.storage import Storage
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.provenance import Provenance
from tokgen.tokens.saved import lengths_in, read_shard
from tokgen.tokens.shards import ShardStore, TokenRow
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec

LAYOUT = {"rows": 2, "seconds": 10.0, "units": 3}


def provenance(**changed) -> Provenance:
    spec = make_stft_codec().spec
    values = {
        "codec": spec.as_dict(),
        "sample_rate": spec.sample_rate,
        "hop_length": spec.hop_length,
        "n_codebooks": 2,
        "codebook_size": spec.codebook_size,
        "conditioning": None,
        "tokgen_version": "0",
        "corpus": "c",
        "corpus_fingerprint": "f",
    }
    return Provenance(**{**values, **changed})


def row(id: str, split: str = "train", n_frames: int = 3) -> TokenRow:
    codes = np.arange(2 * n_frames, dtype=np.uint16).reshape(n_frames, 2)
    return TokenRow(id, split, codes, 320 * n_frames, "text", None, None)


def store(location: str | Path, layout: dict | None = None, **changed) -> ShardStore:
    return ShardStore(Storage(location), provenance(**changed), layout or LAYOUT)


def write(target: ShardStore, index: int, rows: list[TokenRow]) -> None:
    target.write(index, rows, [Rejection("x.wav", "empty")])


@pytest.fixture(params=["local", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "work")
    MemoryFileSystem.store.clear()
    return "memory://bucket/work"


def test_shards_are_read_in_order_whichever_process_wrote_them(location: str) -> None:
    first = store(location)
    assert first.recover() == [] and first.done() == {}
    other = pickle.loads(pickle.dumps(first))  # of a worker
    write(other, 2, [row("e"), row("f", "test")])
    write(first, 0, [row("a"), row("b")])
    done = store(location).done()
    assert list(done) == [0, 2]
    assert done[2].splits == {"train": 1, "test": 1} and done[2].n_rows == 2
    assert done[0].rejections == [Rejection("x.wav", "empty")] and done[0].n_entries == 3
    assert done[0].audio_seconds == pytest.approx(2 * 3 * 320 / 16000)
    rows = read_shard(first.storage, first.file_name(done[0], "train"))
    assert rows["id"].to_pylist() == ["a", "b"]
    assert rows["codes"].to_pylist()[0] == [[0, 1], [2, 3], [4, 5]]


def test_repeating_a_unit_writes_the_same_files(location: str) -> None:
    target = store(location)
    target.recover()
    write(target, 1, [row("c")])
    before = target.storage.read("data/train-00001-of-00003.parquet")
    write(target, 1, [row("c")])
    assert target.storage.read("data/train-00001-of-00003.parquet") == before
    assert list(target.done()) == [1]


def test_a_unit_without_its_marker_or_files_is_not_complete(location: str) -> None:
    target = store(location)
    target.recover()
    for index in range(3):
        write(target, index, [row(str(index))])
    target.storage.delete("done/000000000.json")
    target.storage.delete("data/train-00001-of-00003.parquet")
    again = store(location)
    assert again.recover() == []
    assert list(again.done()) == [2]
    assert again.storage.names("data/") == ["data/train-00002-of-00003.parquet"]


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not parquet at all" * 9])
def test_a_damaged_shard_is_not_complete(location: str, damage: bytes) -> None:
    target = store(location)
    target.recover()
    write(target, 0, [row("a")])
    write(target, 1, [row("b")])
    target.storage.write("data/train-00001-of-00003.parquet", damage)
    again = store(location)
    assert again.recover() == []
    assert list(again.done()) == [0]


@pytest.mark.parametrize(
    ("layout", "changed"),
    [
        (None, {"corpus_fingerprint": "g"}),
        (None, {"n_codebooks": 1}),
        (None, {"precision": "bfloat16"}),
        ({**LAYOUT, "rows": 3}, {}),
    ],
)
def test_shards_of_another_run_are_deleted(location: str, layout: dict | None, changed) -> None:
    target = store(location)
    target.recover()
    write(target, 0, [row("a")])
    other = store(location, layout, **changed)
    assert other.recover()
    assert other.done() == {} and other.storage.names() == ["plan.json"]


def test_an_unreadable_plan_is_ignored(location: str) -> None:
    target = store(location)
    target.recover()
    write(target, 0, [row("a")])
    target.storage.write("plan.json", b"{")
    assert store(location).recover()


# -- datasets at a URL -------------------------------------------------------------------


def test_a_remote_dataset_has_the_rows_of_a_local_one(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    """`datasets` can open `file://` without a driver or a network."""
    corpus = open_corpus(tiny_corpus)
    settings = {"shard_rows": 3, "progress": False, "workers": 1}
    tokenize_corpus(corpus, tiny_codec, tmp_path / "arrow", format="arrow", **settings)
    tokenize_corpus(corpus, tiny_codec, tmp_path / "parquet", **settings)
    assert rows_of(tmp_path / "parquet") == rows_of(tmp_path / "arrow")
    url = (tmp_path / "parquet").as_uri()
    assert rows_of(url) == rows_of(tmp_path / "arrow")
    assert load_tokens(url).provenance == load_tokens(tmp_path / "arrow").provenance


def test_object_storage_gets_shards_and_no_leftovers(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    MemoryFileSystem.store.clear()
    out = "memory://bucket/tokens"
    corpus = open_corpus(tiny_corpus)
    settings = {"shard_rows": 3, "progress": False, "workers": 1}
    tokenize_corpus(corpus, tiny_codec, tmp_path / "t", format="parquet", **settings)
    report = tokenize_corpus(corpus, tiny_codec, out, **settings)
    remote = {name: Storage(out).read(name) for name in Storage(out).names()}
    local = {name: Storage(tmp_path / "t").read(name) for name in Storage(tmp_path / "t").names()}
    assert list(remote.values()) == list(local.values())  # names sort alike
    assert [name for name in local if name.startswith("data/test")] == [
        "data/test-00000-of-00002.parquet",
        "data/test-00001-of-00002.parquet",
    ]
    assert [name for name in remote if name.startswith("data/test")] == [
        "data/test-00001-of-00004.parquet",
        "data/test-00002-of-00004.parquet",
    ]
    assert report.n_rows == sum(len(rows) for rows in rows_of(tmp_path / "t").values())


class Stopping(StftCodec):
    """Raises KeyboardInterrupt after it has encoded twice."""

    n = 0

    def encode_batch_with_side(self, waveforms):
        self.n += 1
        if self.n > 2:
            raise KeyboardInterrupt
        return super().encode_batch_with_side(waveforms)


def test_a_run_to_object_storage_is_resumed(tiny_corpus: Path, tiny_codec: StftCodec) -> None:
    MemoryFileSystem.store.clear()
    corpus, out = open_corpus(tiny_corpus), "memory://bucket/tokens"
    settings = {"shard_rows": 3, "progress": False, "workers": 1}
    tokenize_corpus(corpus, tiny_codec, out, **settings)
    whole = {name: Storage(out).read(name) for name in Storage(out).names()}
    MemoryFileSystem.store.clear()
    with pytest.raises(KeyboardInterrupt):
        tokenize_corpus(corpus, Stopping(tiny_codec.model, tiny_codec.spec), out, **settings)
    with pytest.raises(ValueError, match="not a finished token dataset"):
        load_tokens(out)
    assert tokenize_corpus(corpus, tiny_codec, out, **settings).resumed_rows > 0
    assert {name: Storage(out).read(name) for name in Storage(out).names()} == whole


def test_foreign_files_at_a_url_are_left_alone(tiny_corpus: Path, tiny_codec: StftCodec) -> None:
    MemoryFileSystem.store.clear()
    Storage("memory://bucket/speech").write("a.wav", b"mine")
    for out in ("memory://bucket/speech", "memory://bucket"):
        with pytest.raises(ValueError, match="not a token dataset: choose another folder"):
            tokenize_corpus(open_corpus(tiny_corpus), tiny_codec, out, progress=False, workers=1)
    assert Storage("memory://bucket/speech").read("a.wav") == b"mine"


def test_a_missing_unit_is_an_error(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path, monkeypatch
) -> None:
    """A worker on a machine with other storage reports a unit as complete."""
    write = ShardStore.write

    def elsewhere(self, index, rows, rejections):
        shard = write(self, index, rows, rejections)
        if index == 1:
            self.storage.delete(shard.marker)
        return shard

    monkeypatch.setattr(ShardStore, "write", elsewhere)
    corpus, settings = open_corpus(tiny_corpus), {"shard_rows": 3, "workers": 1, "progress": False}
    with pytest.raises(FileNotFoundError, match=r"1 of 4 units are not in .*, the first of them 1"):
        tokenize_corpus(corpus, tiny_codec, tmp_path / "t", **settings)
    monkeypatch.setattr(ShardStore, "write", write)
    assert tokenize_corpus(corpus, tiny_codec, tmp_path / "t", **settings).n_rows == len(corpus)


def test_a_finished_dataset_at_a_url_is_counted_without_its_codes(
    tiny_corpus: Path, tiny_codec: StftCodec, monkeypatch
) -> None:
    MemoryFileSystem.store.clear()
    corpus, out = open_corpus(tiny_corpus), "memory://bucket/tokens"
    first = tokenize_corpus(corpus, tiny_codec, out, progress=False, workers=1)
    again = tokenize_corpus(corpus, tiny_codec, out, progress=False, workers=1)
    assert again.resumed_rows == again.n_rows == first.n_rows
    assert again.audio_seconds == pytest.approx(first.audio_seconds)


def count_new_threads(folder: Path, results) -> None:
    before = len(os.listdir("/proc/self/task"))
    lengths = list(lengths_in(Storage(folder)))
    results.put((len(lengths), len(os.listdir("/proc/self/task")) - before))


def test_reading_a_shard_starts_no_thread(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    """A thread that still reads when the process ends would abort the process."""
    settings = {"format": "parquet", "progress": False, "workers": 1}
    tokenize_corpus(open_corpus(tiny_corpus), tiny_codec, tmp_path / "t", **settings)
    results = fork_context().SimpleQueue()
    child = fork_context().Process(target=count_new_threads, args=(tmp_path / "t", results))
    child.start()
    assert results.get() == (len(open_corpus(tiny_corpus)), 0)
    child.join()
    assert child.exitcode == 0
