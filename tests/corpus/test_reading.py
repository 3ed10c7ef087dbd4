from __future__ import annotations

import os
import pickle

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from makers.corpora import save, table, tone
from tokgen.audio.files import AudioError
from tokgen.corpus.entries import Entry
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.corpus.reading import check_loud


@pytest.fixture
def parquet(tmp_path) -> Corpus:
    folder = tmp_path / "tables"
    folder.mkdir()
    pq.write_table(table(tmp_path, 6), folder / "x.parquet", row_group_size=3)
    return open_corpus(folder)


def test_a_pickled_corpus_can_be_read(parquet):
    first = parquet.load(parquet.entries[1], 16000).waveform  # files are open now
    again = pickle.loads(pickle.dumps(parquet))
    assert again.entries == parquet.entries and again.fingerprint == parquet.fingerprint
    assert again.load(again.entries[1], 16000).waveform.equal(first)


def test_a_pickled_dataset_can_be_read(tmp_path):
    datasets.Dataset(table(tmp_path, 3)).save_to_disk(str(tmp_path / "saved"))
    corpus = open_corpus(tmp_path / "saved")
    again = pickle.loads(pickle.dumps(corpus))
    for entry in corpus.entries:
        ours, theirs = corpus.load(entry, 16000), again.load(entry, 16000)
        assert theirs.waveform.equal(ours.waveform)


def test_a_forked_process_opens_its_own_files(parquet):
    """Parent and child would share the position in a file that was opened before the fork."""
    waveforms = [parquet.load(entry, 16000).waveform for entry in parquet.entries]
    parquet.load(parquet.entries[0], 16000)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        held = list(parquet.store._open)
        again = parquet.load(parquet.entries[3], 16000).waveform
        fresh = (0, 0) in held and (0, 0) not in parquet.store._open
        os.write(writer, b"yes" if fresh and again.equal(waveforms[3]) else b"no")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 3) == b"yes"
    assert parquet.load(parquet.entries[1], 16000).waveform.equal(waveforms[1])


def test_blocks_of_open_equal_the_waveform_of_load(tmp_path, parquet):
    save(tmp_path / "folder" / "a.wav", tone(20, 22050), 22050)
    for corpus in (parquet, open_corpus(tmp_path / "folder")):
        entry = corpus.entries[0]
        with corpus.open(entry, 16000) as blocks:
            assert blocks.sample_rate == 16000
            parts = list(blocks)
        assert torch.cat(parts, -1).equal(corpus.load(entry, 16000).waveform)
    assert len(parts) > 1


def test_channels_are_mixed_or_kept(tmp_path):
    both = np.stack([tone(1, 16000), 0.5 * tone(1, 16000)[::-1]], 1)
    save(tmp_path / "a.wav", both, 16000)
    save(tmp_path / "b.wav", both[:, 0], 16000)
    save(tmp_path / "c.wav", np.repeat(both, 2, 1), 16000)
    rejected = []
    corpus = open_corpus(tmp_path)
    kept = list(corpus.utterances(16000, rejected=rejected, channels=2))
    assert [u.waveform.shape[0] for u in kept] == [2, 1]
    assert "has 4 channels, but must have 1 or 2" in rejected[0].reason
    np.testing.assert_allclose(kept[0].waveform.T, both, atol=1e-4)
    with corpus.open(corpus.entries[0], 16000, channels=2) as blocks:
        assert torch.cat(list(blocks), -1).equal(kept[0].waveform)
    mixed = [u.waveform for u in corpus.utterances(16000, rejected=rejected)]
    assert [len(w) for w in mixed] == [1, 1, 1]
    assert mixed[0].equal(kept[0].waveform.mean(0, keepdim=True))


def test_longest_audio_of_load_and_open(tmp_path):
    save(tmp_path / "two hours.flac", np.zeros(1000 * 7200, np.int16), 1000)
    save(tmp_path / "long.flac", np.zeros(1000 * 90000, np.int16), 1000)
    corpus = open_corpus(tmp_path)
    long, two_hours = corpus.entries
    with pytest.raises(AudioError, match="the limit is 3600 s"):
        corpus.load(two_hours, 1000)
    with corpus.open(two_hours, 1000) as blocks:
        assert sum(block.shape[-1] for block in blocks) == 7200 * 1000
    with pytest.raises(AudioError, match="the limit is 86400 s"), corpus.open(long, 1000):
        pass
    with (
        pytest.raises(AudioError, match=r"two hours.*the limit is 60 s"),
        corpus.open(two_hours, 1000, longest_seconds=60),
    ):
        pass


def test_errors_of_blocks_name_the_entry(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    rows = table(tmp_path, 1)
    data = rows.column("audio")[0].as_py()["bytes"]
    save(tmp_path / "cut.wav", tone(20))
    cut = (tmp_path / "cut.wav").read_bytes()[:400_000]
    cells = [{"bytes": b"junk" * 9, "path": "j.wav"}, {"bytes": cut, "path": "c.wav"}]
    rows = rows.slice(0, 0).from_pydict({"audio": [*cells, {"bytes": data, "path": "ok.flac"}]})
    pq.write_table(rows, folder / "x.parquet")
    corpus = open_corpus(folder)
    for entry, reason in zip(corpus.entries, ["not audio", "truncated"], strict=False):
        with pytest.raises(AudioError, match=reason) as error, corpus.open(entry, 16000) as blocks:
            list(blocks)
        assert error.value.source == entry.source
    with pytest.raises(AudioError, match="of another"), corpus.open(corpus.entries[2], 16000):
        raise AudioError("of another", "no matter")


def test_silence():
    entry = Entry("a", "a.wav", None, None, "train", 1.0)
    check_loud(entry, 0.002)
    with pytest.raises(AudioError, match="silence"):
        check_loud(entry, 0.0005)
