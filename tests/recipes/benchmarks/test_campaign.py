"""The campaign compares what matters, and runs with a tiny codec."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import campaign


def test_weights_are_compared_by_value_and_json_without_times(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    job = campaign.Job("x", lambda out: [], ("**/*",))
    for folder, seconds in ((ours, 1.0), (theirs, 2.0)):
        folder.mkdir()
        save_file({"a": np.arange(3.0)}, folder / "m.safetensors", {"seconds": str(seconds)})
        rows = {"pesq": 2.5, "train_seconds": seconds}
        (folder / "metrics.json").write_text(json.dumps({"rows": [rows], "speed": seconds}))
        (folder / "a.bin").write_bytes(b"same")
    assert campaign.differences(job, ours, theirs) == []
    save_file({"a": np.arange(1.0, 4.0)}, ours / "m.safetensors")
    (ours / "a.bin").write_bytes(b"else")
    (theirs / "metrics.json").unlink()
    assert campaign.differences(job, ours, theirs) == ["a.bin", "m.safetensors", "metrics.json"]
    empty = campaign.Job("x", lambda out: [], ("*.wav",))
    assert campaign.differences(empty, ours, theirs) == ["no results"]


@pytest.mark.parametrize("number", campaign.SIGNALS)
def test_a_command_is_killed(number):
    script = "import sys, time; print('begun', file=sys.stderr, flush=True); time.sleep(60)"
    ended = campaign.run([sys.executable, "-c", script], kill=(1.0, number))
    assert ended.code in (-number, 1) and ended.seconds < 30
    assert ("KeyboardInterrupt" in ended.errors) == (number == signal.SIGINT)


def test_a_limit_of_files_is_a_full_disk(tmp_path):
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(bytes(5000))"
    ended = campaign.run([sys.executable, "-c", script, tmp_path / "a"], file_limit=1000)
    assert ended.code == 1 and "File too large" in ended.errors


@pytest.mark.slow
def test_campaign(tiny_codec_folder, tiny_corpus, tmp_path, capsys):
    sizes = ["--clips", "6", "--fills", "1", "--kills", "1", "--jobs", "tokenize", "decode"]
    flags = ["--corpus", tiny_corpus, "--codec", tiny_codec_folder, "--out", tmp_path / "c.json"]
    assert campaign.main([*sizes, *map(str, flags)]) == 0
    counts = json.loads((tmp_path / "c.json").read_text())
    assert [(c["job"], c["n"], c["equal"]) for c in counts] == [
        *(("tokenize", 1, 1), ("tokenize", 1, 1), ("decode", 1, 1)),
    ]
    assert "tokenize  kill" in capsys.readouterr().out
