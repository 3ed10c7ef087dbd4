"""Engines: the same rows from each, and nothing lost or doubled when a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from makers.audio import RATE, make_tone
from makers.codecs import make_stft_codec
from makers.corpora import CLIPS
from makers.tokens import rows_of
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.engines import local
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.stft import StftCodec

SHARDS = {"shard_rows": 3, "progress": False}


@pytest.fixture(scope="module")
def saved_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that any process can load the codec from."""
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


def test_local_workers_give_the_same_rows(
    tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path
) -> None:
    corpus, codec = open_corpus(tiny_corpus), load_codec(saved_codec)
    report = tokenize_corpus(corpus, codec, tmp_path / "t", workers=2, **SHARDS)
    assert report.n_rows == len(CLIPS)
    assert rows_of(tmp_path / "t") == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_one_process_computes_as_workers_do(
    threads: int, tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path, monkeypatch
) -> None:
    """With one thread, whatever torch has: convolutions round otherwise with more."""
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


class Dying(StftCodec):
    """Its process is killed at some encodings, as long as there is a file to take away."""

    deaths: Path
    longest = RATE  # samples of what it still stands

    def encode_batch_with_side(self, waveforms):
        if max(map(len, waveforms)) > self.longest:
            for file in self.deaths.iterdir():
                with suppress(FileNotFoundError):  # another worker took it
                    file.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_batch_with_side(waveforms)


def dying_codec(folder: Path, n: int) -> Dying:
    codec = make_stft_codec()
    dying = Dying(codec.model, codec.spec)
    dying.deaths = folder / "deaths"
    dying.deaths.mkdir()
    for i in range(n):
        (dying.deaths / str(i)).touch()
    return dying


def test_a_killed_worker_is_replaced(tiny_corpus: Path, expected: dict, tmp_path: Path) -> None:
    codec = dying_codec(tmp_path, 2)
    report = tokenize_corpus(open_corpus(tiny_corpus), codec, tmp_path / "t", workers=2, **SHARDS)
    assert not list(codec.deaths.iterdir())
    assert report.n_rows == len(CLIPS)
    assert rows_of(tmp_path / "t") == expected


def test_workers_that_always_die_end_the_run(
    tiny_corpus: Path, expected: dict, tmp_path: Path
) -> None:
    corpus, out = open_corpus(tiny_corpus), tmp_path / "t"
    codec = dying_codec(tmp_path, 100)
    codec.longest = 0
    with pytest.raises(RuntimeError, match=r"died 3 times .* units are left, the first of them 0"):
        tokenize_corpus(corpus, codec, out, workers=2, **SHARDS)
    assert not out.exists()
    tokenize_corpus(corpus, make_stft_codec(), out, workers=2, **SHARDS)
    assert rows_of(out) == expected


def test_workers_that_are_not_forked_give_the_same_rows(
    tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path, monkeypatch
) -> None:
    """As where corpus or dataset are behind a URL, whose connections no fork survives."""
    monkeypatch.setattr(local, "_may_fork", lambda job: False)
    corpus, codec = open_corpus(tiny_corpus), load_codec(saved_codec)
    tokenize_corpus(corpus, codec, tmp_path / "t", workers=2, **SHARDS)
    assert rows_of(tmp_path / "t") == expected


def test_an_utterance_that_kills_workers_is_rejected_by_name(
    tiny_corpus: Path, expected: dict, tmp_path: Path
) -> None:
    codec = dying_codec(tmp_path, 100)
    codec.longest = 2 * RATE  # c.wav alone is longer
    report = tokenize_corpus(open_corpus(tiny_corpus), codec, tmp_path / "t", workers=2, **SHARDS)
    assert [Path(r.source).name for r in report.rejections] == ["c.wav"]
    assert "its process died" in report.rejections[0].reason
    kept = {s: [row for row in rows if row["id"] != "c"] for s, rows in expected.items()}
    assert rows_of(tmp_path / "t") == kept


def test_no_worker_outlives_its_parent(
    tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path
) -> None:
    for i in range(40):  # work for some seconds
        write_audio(tmp_path / "c" / f"{i:02d}.wav", make_tone(20.0, i), RATE)
    command = [sys.executable, "-m", "tokgen", "tokenize", "--corpus", str(tmp_path / "c")]
    command += ["--codec", "speech-16k", "--out", str(tmp_path / "t"), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    parent, workers = psutil.Process(process.pid), []
    while len(workers) < 2 and process.poll() is None:
        workers = [p for p in parent.children() if "multiprocessing" not in str(p.cmdline())]
        time.sleep(0.01)
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(workers, timeout=5)
    assert len(gone) == 2 and not alive


@pytest.mark.parametrize("forked", [True, False])
def test_readers_ahead_of_an_accelerator_give_the_same_rows(
    forked: bool, tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path, monkeypatch
) -> None:
    """What a GPU gets, with the codec on the CPU: it encodes here, others decode."""
    monkeypatch.setattr(local, "_pool", local._read_ahead)
    monkeypatch.setattr(local, "_may_fork", lambda job: forked)
    corpus, codec = open_corpus(tiny_corpus), load_codec(saved_codec)
    tokenize_corpus(corpus, codec, tmp_path / "t", workers=2, **SHARDS)
    assert rows_of(tmp_path / "t") == expected


def test_accelerate_gives_the_same_rows(
    tiny_corpus: Path, saved_codec: Path, expected: dict, tmp_path: Path
) -> None:
    out = tmp_path / "t"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launcher, "-m", "tokgen", "tokenize", "--engine", "accelerate"]
    command += ["--corpus", tiny_corpus, "--codec", saved_codec, "--out", out, "--shard-rows", "3"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{len(CLIPS)} rows") == 1  # the first process reports for all
    assert rows_of(out) == expected


# -- Ray -------------------------------------------------------------------------------------


def test_ray_gives_the_same_rows_though_an_actor_is_killed(
    saved_codec: Path, tmp_path: Path
) -> None:
    for i in range(24):
        write_audio(tmp_path / "c" / f"{i:02d}.wav", make_tone(6.0 + i / 7, i), RATE)
    corpus = open_corpus(tmp_path / "c")
    settings = {"shard_rows": 1, "progress": False}
    tokenize_corpus(corpus, load_codec(saved_codec), tmp_path / "one", workers=1, **settings)
    command = [sys.executable, "-m", "tokgen", "tokenize", "--corpus", str(tmp_path / "c")]
    command += ["--codec", str(saved_codec), "--out", str(tmp_path / "t"), "--engine", "ray"]
    command += ["--workers", "2", "--shard-rows", "1"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    markers = tmp_path / ".t.partial" / "done"
    victim = None
    while victim is None and process.poll() is None:
        if markers.is_dir() and len(list(markers.glob("*.json"))) >= 2:
            actors = [
                p
                for p in psutil.Process(process.pid).children(recursive=True)
                if "MapWorker" in " ".join(p.cmdline())
            ]
            assert len(actors) == 2, actors
            victim = actors[0]
            victim.kill()
        time.sleep(0.005)
    assert process.wait(120) == 0, log.read_text()
    assert victim is not None
    assert rows_of(tmp_path / "t") == rows_of(tmp_path / "one")
    shards = sorted(p.name for p in (tmp_path / "t" / "data").iterdir())
    assert len(shards) == 24  # one a unit: nothing lost, nothing doubled
    assert json.loads((tmp_path / "t" / "provenance.json").read_text())["corpus"] == "c"


def test_ray_missing(tiny_corpus: Path, tiny_codec, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[ray\]'"):
        tokenize_corpus(open_corpus(tiny_corpus), tiny_codec, tmp_path / "t", engine="ray")
