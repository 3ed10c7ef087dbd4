"""Every engine makes the same rows, and no row is lost or doubled when a worker is killed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from makers.audio import RATE, make_tone
from makers.codecs import make_stft_codec
from makers.corpora import CLIPS, upload
from makers.paths import ROOT
from makers.processes import fork_context
from makers.tokens import DyingCodec, HangingCodec, rows_of, tokenize_in_process
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.storage import Storage
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.engines import local
from tokgen.tokens.engines.job import Job
from tokgen.tokens.engines.progress import Progress
from tokgen.tokens.shards import ShardStore
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.stft import StftCodec

SHARDS = {"shard_rows": 3, "progress": False}
PATIENCE = 900  # seconds; only a failing test waits so long


@pytest.fixture(scope="module")
def saved_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which any process can load the codec."""
    folder = tmp_path_factory.mktemp("codec") / "tiny"
    make_stft_codec().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(
    tiny_corpus: Path, saved_codec: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict]]:
    """The rows that one process makes."""
    out = tmp_path_factory.mktemp("expected") / "tokens"
    tokenize_corpus(open_corpus(tiny_corpus), load_codec(saved_codec), out, workers=1, **SHARDS)
    return rows_of(out)


# -- this machine ----------------------------------------------------------------------------


def test_local_workers_make_the_same_rows(
    tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path
) -> None:
    corpus, codec = open_corpus(tiny_corpus), load_codec(saved_codec)
    report = tokenize_corpus(corpus, codec, tmp_path / "t", workers=2, **SHARDS)
    assert report.n_rows == len(CLIPS)
    assert rows_of(tmp_path / "t") == expected


def test_workers_that_are_not_forked_make_the_same_rows(
    tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path, monkeypatch
) -> None:
    """They receive the job pickled. Forks of a server start faster here than spawned processes."""
    monkeypatch.setattr(local, "context_of", lambda job: fork_context())
    corpus, codec = open_corpus(tiny_corpus), load_codec(saved_codec)
    tokenize_corpus(corpus, codec, tmp_path / "t", workers=2, **SHARDS)
    assert rows_of(tmp_path / "t") == expected


def test_workers_that_are_not_forked_search_too(
    tiny_corpus: Path, saved_codec: Path, tmp_path: Path, monkeypatch
) -> None:
    corpus, codec = open_corpus(tiny_corpus), load_codec(saved_codec).with_beam(4, "latent")
    tokenize_corpus(corpus, codec, tmp_path / "one", workers=1, n_codebooks=3, **SHARDS)
    monkeypatch.setattr(local, "context_of", lambda job: fork_context())
    tokenize_corpus(corpus, codec, tmp_path / "two", workers=2, n_codebooks=3, **SHARDS)
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "two")


def test_workers_are_forked_only_if_all_files_are_local(
    tiny_corpus: Path, tiny_codec: StftCodec, expected: dict, tmp_path: Path
) -> None:
    """Connections to a store do not survive a fork."""
    tokenize_corpus(open_corpus(tiny_corpus), tiny_codec, tmp_path / "t", workers=1, **SHARDS)
    provenance = load_tokens(tmp_path / "t").provenance
    remote = upload(tiny_corpus, "memory://forked/corpus")

    def start_method(corpus: str | Path, out: str | Path) -> str | None:
        job = Job(
            open_corpus(corpus),
            tiny_codec,
            ShardStore(Storage(out), provenance, {}),
            settings=None,
            n_codebooks=4,
            batch_seconds=1.0,
            precision="float32",
        )
        return local.context_of(job).get_start_method()

    assert start_method(tiny_corpus, tmp_path) == "fork"
    assert start_method(remote, tmp_path) == "spawn"
    assert start_method(tiny_corpus, "memory://forked/out") == "spawn"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_without_workers_uses_one_thread(
    threads: int, tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path, monkeypatch
) -> None:
    """As workers do, because convolutions round differently with more threads."""
    seen, before = [], torch.get_num_threads()
    encode = tiny_codec.encode_batch_with_side

    def spy(waveforms):
        seen.append(torch.get_num_threads())
        return encode(waveforms)

    monkeypatch.setattr(tiny_codec, "encode_batch_with_side", spy)
    try:
        torch.set_num_threads(threads)
        out = tmp_path / "t"
        tokenize_corpus(open_corpus(tiny_corpus), tiny_codec, out, workers=1, **SHARDS)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


@pytest.mark.parametrize("forked", [True, False])
def test_readers_ahead_of_a_gpu_make_the_same_rows(
    forked: bool, tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path, monkeypatch
) -> None:
    """The codec is on the CPU here: this process encodes, and others decode."""
    monkeypatch.setattr(local, "_pool", local._read_ahead)
    if not forked:
        monkeypatch.setattr(local, "context_of", lambda job: fork_context())
    corpus, codec = open_corpus(tiny_corpus), load_codec(saved_codec)
    tokenize_corpus(corpus, codec, tmp_path / "t", workers=2, **SHARDS)
    assert rows_of(tmp_path / "t") == expected


# -- workers that die ------------------------------------------------------------------------


def test_a_killed_worker_is_replaced(tiny_corpus: Path, expected: dict, tmp_path: Path) -> None:
    codec = DyingCodec(tmp_path / "deaths", 2)
    report = tokenize_corpus(open_corpus(tiny_corpus), codec, tmp_path / "t", workers=2, **SHARDS)
    assert not list(codec.deaths.iterdir())
    assert report.n_rows == len(CLIPS)
    assert rows_of(tmp_path / "t") == expected


def test_workers_that_always_die_end_the_run(
    tiny_corpus: Path, expected: dict, tmp_path: Path
) -> None:
    corpus, out = open_corpus(tiny_corpus), tmp_path / "t"
    codec = DyingCodec(tmp_path / "deaths", 100, longest=0)
    with pytest.raises(ChildProcessError, match=r"died 3 times .* units are left, the first.* 0"):
        tokenize_corpus(corpus, codec, out, workers=2, **SHARDS)
    assert not out.exists()
    tokenize_corpus(corpus, make_stft_codec(), out, workers=2, **SHARDS)
    assert rows_of(out) == expected


def test_an_utterance_that_kills_workers_is_rejected_by_name(
    tiny_corpus: Path, expected: dict, tmp_path: Path
) -> None:
    codec = DyingCodec(tmp_path / "deaths", 100, longest=2 * RATE)  # only c.wav is longer
    report = tokenize_corpus(open_corpus(tiny_corpus), codec, tmp_path / "t", workers=2, **SHARDS)
    assert [Path(r.source).name for r in report.rejections] == ["c.wav"]
    assert "its process died" in report.rejections[0].reason
    kept = {s: [row for row in rows if row["id"] != "c"] for s, rows in expected.items()}
    assert rows_of(tmp_path / "t") == kept


def test_no_worker_outlives_its_parent(tiny_corpus: Path, tmp_path: Path) -> None:
    codec = HangingCodec(tmp_path / "started")
    flags = ["--corpus", tiny_corpus, "--codec", "speech-16k", "--out", tmp_path / "t"]
    flags += ["--workers", "2", "--shard-rows", "3"]
    log = tmp_path / "log"
    parent = fork_context().Process(target=tokenize_in_process, args=(flags, log, {}, codec))
    parent.start()
    while len(list(codec.started.iterdir())) < 2 and parent.is_alive():
        time.sleep(0.01)
    workers = [psutil.Process(int(file.name)) for file in codec.started.iterdir()]
    assert len(workers) == 2, log.read_text()
    parent.kill()
    parent.join(PATIENCE)
    gone, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert len(gone) == 2 and not alive


# -- several processes or machines -------------------------------------------------------------


def test_accelerate_makes_the_same_rows(
    tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path
) -> None:
    """Two processes with the environment that `accelerate launch` gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--engine", "accelerate", "--corpus", tiny_corpus, "--codec", saved_codec]
    flags += ["--out", tmp_path / "t", "--shard-rows", "3"]
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    processes = []
    for rank, log in enumerate(logs):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in environment.items()}
        target = (flags, log, environment)
        processes.append(fork_context().Process(target=tokenize_in_process, args=target))
        processes[-1].start()
    for process, log in zip(processes, logs, strict=True):
        process.join(PATIENCE)
        assert process.exitcode == 0, log.read_text()
    assert logs[0].read_text().count(f"{len(CLIPS)} rows") == 1  # the first reports for all
    assert " rows" not in logs[1].read_text()
    assert rows_of(tmp_path / "t") == expected


def test_ray_makes_the_same_rows_though_an_actor_is_killed(
    tiny_corpus: Path, expected: dict, tmp_path: Path
) -> None:
    codec = DyingCodec(tmp_path / "deaths", 1)
    flags = ["--engine", "ray", "--corpus", tiny_corpus, "--codec", "speech-16k"]
    flags += ["--out", tmp_path / "t", "--workers", "2", "--shard-rows", "3"]
    log = tmp_path / "log"
    environment = {"PYTHONPATH": str(ROOT / "tests")}  # actors load the codec's class from there
    target = (flags, log, environment, codec)
    process = fork_context().Process(target=tokenize_in_process, args=target)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0, log.read_text()
    assert not list(codec.deaths.iterdir())
    assert rows_of(tmp_path / "t") == expected
    files = sorted(path.name for path in (tmp_path / "t" / "data").glob("train-*"))
    assert files == [f"train-0000{i}-of-00004.parquet" for i in range(4)]  # none lost or doubled
    assert load_tokens(tmp_path / "t").provenance.corpus == tiny_corpus.name


def test_ray_is_not_installed(tiny_corpus: Path, tiny_codec, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[ray\]'"):
        tokenize_corpus(open_corpus(tiny_corpus), tiny_codec, tmp_path / "t", engine="ray")


def test_the_bar_shows_no_rate_without_audio(capsys):
    progress = Progress("resumed", 13, 12, True)
    progress.add(1, 0.0)
    progress.close()
    said = capsys.readouterr().err
    assert "13/13 row (100 %)" in said and "RTF" not in said and "row/s" not in said


# -- utterances that end their process -------------------------------------------------------


def test_a_corpus_whose_every_utterance_kills_its_process(tmp_path: Path) -> None:
    """The codec itself runs, so the utterances are the cause, not the workers."""
    codec, corpus = DyingCodec(tmp_path / "deaths", 100), tmp_path / "corpus"
    for i in range(3):
        write_audio(corpus / f"{i}.wav", make_tone(1.5, i), RATE)
    settings = {"workers": 2, "shard_rows": 1, "progress": False}
    with pytest.raises(ValueError, match=r"no usable audio: 3 rejected .*its process died"):
        tokenize_corpus(open_corpus(corpus), codec, tmp_path / "t", **settings)


def _run_here(corpus: Path, codec: DyingCodec, out: Path) -> None:
    tokenize_corpus(open_corpus(corpus), codec, out, workers=1, **SHARDS)


def test_one_process_that_dies_rejects_the_utterance_when_it_is_started_again(
    tiny_corpus: Path, expected: dict, tmp_path: Path
) -> None:
    codec = DyingCodec(tmp_path / "deaths", 100, longest=2 * RATE)  # only c.wav is longer
    first = fork_context().Process(target=_run_here, args=(tiny_corpus, codec, tmp_path / "t"))
    first.start()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    report = tokenize_corpus(open_corpus(tiny_corpus), codec, tmp_path / "t", workers=1, **SHARDS)
    assert [Path(r.source).name for r in report.rejections] == ["c.wav"]
    kept = {s: [row for row in rows if row["id"] != "c"] for s, rows in expected.items()}
    assert rows_of(tmp_path / "t") == kept


class DyingCorpus(Corpus):
    """Ends the process that reads c.wav."""

    def _borrow(self, entry):
        if entry.id == "c":
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._borrow(entry)


def test_an_utterance_that_kills_readers_ahead_of_a_gpu_is_rejected(
    tiny_corpus: Path, tiny_codec, expected: dict, tmp_path: Path, monkeypatch
) -> None:
    found = open_corpus(tiny_corpus)
    corpus = DyingCorpus(found.name, found.entries, found.rejections, found.store)
    monkeypatch.setattr(local, "reads_ahead", lambda job: True)
    report = tokenize_corpus(corpus, tiny_codec, tmp_path / "t", workers=2, **SHARDS)
    assert [Path(r.source).name for r in report.rejections] == ["c.wav"]
    kept = {s: [row for row in rows if row["id"] != "c"] for s, rows in expected.items()}
    assert rows_of(tmp_path / "t") == kept
