"""The benchmark of stable decoding, tiny."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import bench_stable
import stable_tables
from tokgen.codec.stable.settings import StableDecoding
from tokgen.corpus.listed import open_corpus
from tokgen.zoo.stft import StftCodec


def test_stable_and_plain_decoding_are_compared_and_continued(
    tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--codecs", str(tiny_codec_folder), "--corpus", str(tiny_corpus), "--seconds", "0.7"]
    flags += ["--split", "train", "--clips", "2", "--min_seconds", "1", "--settings", "steps=30"]
    flags += ["--metrics", "pesq,si_sdr", "--transport_clips", "1"]
    flags += ["--transports", "int16,resample:8000", "--out", str(tmp_path / "out")]
    assert bench_stable.main([*flags, "--figure", str(tmp_path / "difference.png")]) == 0
    text = (tmp_path / "out" / "stable.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert (tmp_path / "difference.png").is_file()
    content = json.loads((tmp_path / "out" / "stable.json").read_text())
    assert content["stable"]["steps"] == 30
    found = content["codecs"][str(tiny_codec_folder)]
    assert len(found["clips"]) == 2 and len(found["transports"]) == 1
    for record in found["clips"]:
        assert record["plain"]["kept"] < record["stable"]["kept16"] == 1
        assert record["steps"] > 0 and record["snr_db"] > 0
        assert record["stable"]["wall"] > 0 and record["plain"]["cpu"] > 0
        assert set(record["stable"]["scores"]) >= {"pesq", "si_sdr", "mel"}
    carried = found["transports"][0]
    assert carried["int16"]["stable"] == carried["int16"]["robust"] == 1
    assert carried["resample:8000"]["robust"] > carried["resample:8000"]["plain"]
    assert "| 100.0 % (2; at least 22.4 %) |" in text
    times = [line for line in text.splitlines() if "SI-SDR" in line]
    assert len(times) == 1 and "| 2 " in times[0]
    assert bench_stable.main(flags) == 0  # nothing is left to measure, so times are those of before
    assert json.loads((tmp_path / "out" / "stable.json").read_text())["codecs"] == content["codecs"]


def test_clips_are_spread_over_the_split(tiny_corpus: Path) -> None:
    corpus = open_corpus(tiny_corpus)
    ids = [entry.id for entry in corpus.entries]
    assert [e.id for e in bench_stable.spread(corpus, 3).entries] == [ids[0], ids[3], ids[6]]
    assert bench_stable.spread(corpus, 99) is bench_stable.spread(corpus, None) is corpus


def test_cut_clips_have_no_text(tiny_codec: StftCodec, tiny_corpus: Path) -> None:
    corpus = open_corpus(tiny_corpus, split="test")  # clips of 1 s and 1.9 s
    cut, whole = (list(bench_stable.read_clips(tiny_codec, corpus, s, ("en",))) for s in (1.5, 0))
    assert [clip.text for clip in cut] == ["thank you", None]
    assert [clip.waveform.shape for clip in cut] == [(1, 1, 16000), (1, 1, 24000)]
    assert [clip.text for clip in whole] == ["thank you", "your call may be recorded"]


def test_settings_are_read() -> None:
    found = bench_stable.make_settings(["steps=7", "margin=.5"], "int16,mp3:64")
    assert found == StableDecoding(steps=7, margin=0.5, robust_to=("int16", "mp3:64"))
    assert bench_stable.make_settings([], "").robust_to == ()
    for wrong in ("step=7", "steps"):
        with pytest.raises(ValueError, match="NAME=VALUE"):
            bench_stable.make_settings([wrong], None)


def test_differences_are_paired_and_failures_left_out() -> None:
    def record(plain: float, stable: float) -> dict:
        scores = {"mos": 3.0, "edits": 1.0, "chars": 10.0, "mel": 1.0}
        ways = {"plain": plain, "stable": stable}
        return {way: {"scores": scores | {"mos": value}} for way, value in ways.items()}

    records = [record(3, 3.5), record(4, 4.5), record(1, 0), record(math.nan, 1)]
    rows = {row[0]: row[1:] for row in stable_tables.quality_rows(records, ["mos", "cer"])}
    assert rows["MOS"][0] == "3" and rows["MOS"][-1] == "+0.500"
    assert rows["MOS"][-2].startswith("+0.000 [-")
    assert rows["CER"][1] == "0.100 [0.100, 0.100]" and rows["CER"][0] == "4"
