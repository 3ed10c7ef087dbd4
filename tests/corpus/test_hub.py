"""Hub datasets as corpora. No hub is in reach: local data stands in for its answers."""

from __future__ import annotations

import datasets
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from makers.corpora import run, table
from tokgen.corpus.listed import open_corpus


def test_list_a_hub_dataset(tmp_path, monkeypatch):
    asked = []

    def load_dataset(*args):
        asked.append(args)
        if args[0] != "someone/speech":
            raise datasets.exceptions.DatasetNotFoundError("no such dataset")
        return datasets.DatasetDict({"train.clean": datasets.Dataset(table(tmp_path, 2))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = open_corpus("someone/speech:clean")
    assert asked == [("someone/speech", "clean")]
    assert corpus.splits == {"train.clean": 2}
    assert len(run(corpus)[0]) == 2
    named = open_corpus("libritts:someone/speech:clean")
    assert asked.pop() == ("someone/speech", "clean")
    assert {(e.split, e.language) for e in named.entries} == {("train-clean", "en")}
    assert named.select("train").splits == {"train": 2}
    message = r"someone/else is no folder or file, and the hub knows no such dataset.*HF_TOKEN"
    with pytest.raises(FileNotFoundError, match=message):
        open_corpus("someone/else")
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        open_corpus(tmp_path / "gone")
    assert len(asked) == 2


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_hub_there_are_no_retries(monkeypatch, caplog, capfd, streaming):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(FileNotFoundError, match=r"owner/name is no folder or file, and the hub"):
        open_corpus("owner/name", streaming=streaming)
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)
    assert "Retry" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_mistyped_path_is_not_looked_up_on_the_hub(tmp_path, monkeypatch, streaming):
    monkeypatch.setattr(datasets, "load_dataset", None)  # calling it would be a TypeError
    monkeypatch.setattr(datasets, "load_dataset_builder", None)
    (tmp_path / "data" / "speech").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    message = r"no folder or file data/spech \(did you mean speech\?\)"
    with pytest.raises(FileNotFoundError, match=message):
        open_corpus("data/spech", streaming=streaming)
    with pytest.raises(FileNotFoundError, match=r"no folder or file dta \(did you mean data\?\)"):
        open_corpus("dta", streaming=streaming)


@pytest.mark.network
def test_hub_dataset_for_real():
    corpus = open_corpus("hf-internal-testing/librispeech_asr_dummy:clean")
    assert len(corpus.load(corpus.entries[0], 16000).waveform[0]) > 16000


def test_stream_a_hub_dataset(tmp_path, monkeypatch):
    rows = table(tmp_path, 4, sentence=list("abcd"))
    files = [str(tmp_path / f"train-{i}.parquet") for i in range(2)]
    for i, file in enumerate(files):
        pq.write_table(rows.slice(2 * i, 2), file)
    real = datasets.load_dataset_builder

    def builder(repository, config):
        assert (repository, config) == ("owner/name", "en")
        return real("parquet", data_files={"train": files})

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    corpus = open_corpus("owner/name:en", streaming=True)
    assert corpus.name == "owner/name:en" and len(corpus.units()) == 2
    found = [entry for unit in corpus.units() for entry in corpus.read_unit(unit)]
    assert [(e.id, e.text, e.split) for e in found] == [
        (f"c{i}", "abcd"[i], "train") for i in range(4)
    ]

    def unreachable(repository, config):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    message = r"cannot be reached.*`hf download --repo-type dataset owner/name`"
    with pytest.raises(FileNotFoundError, match=message):
        open_corpus("owner/name:en", streaming=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="unset HF_HUB_OFFLINE"):
        open_corpus("owner/name", streaming=True)
