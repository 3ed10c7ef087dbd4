"""Folders of audio files as corpora."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from makers.corpora import reasons, run, save, tone
from tokgen.corpus.listed import open_corpus
from tokgen.corpus.splits import assign_split


def test_folder_of_audio(tmp_path):
    save(tmp_path / "b.wav")
    save(tmp_path / "a" / "one two ñ 音.flac", tone(1))
    save(tmp_path / "a" / "c.mp3")
    save(tmp_path / ".hidden" / "d.wav")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "b.txt").write_text("companion of b.wav")
    corpus = open_corpus(tmp_path)
    assert [e.id for e in corpus.entries] == ["b", "a/c", "a/one two ñ 音"]
    assert corpus.rejections == []
    assert corpus.name == tmp_path.name
    utterances, rejected = run(corpus, 24000)
    assert rejected == []
    assert [u.waveform.shape for u in utterances] == [(1, 12000), (1, 12000), (1, 24000)]
    assert {u.sample_rate for u in utterances} == {24000}
    assert [u.split for u in utterances] == [assign_split(u.id) for u in utterances]


def test_bad_files_are_reported_and_the_others_are_read(tmp_path):
    good = {
        "eight bits.wav": save(tmp_path / "eight bits.wav", subtype="PCM_U8"),
        "96k.wav": save(tmp_path / "96k.wav", tone(rate=96000), 96000),
        "six.wav": save(tmp_path / "six.wav", np.stack([tone()] * 6, 1)),
        "größe 音.wav": save(tmp_path / "größe 音.wav"),
    }
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("hello " * 99)
    whole = save(tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:9000])
    (tmp_path / "half.wav").write_bytes(whole[:9000])
    whole = save(tmp_path / "cut.flac", tone(2)).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "nan.wav", np.append(tone(), np.nan), subtype="FLOAT")
    save(tmp_path / "nothing.wav", tone()[:0])
    save(tmp_path / "silence.wav", np.zeros(8000))
    save(tmp_path / "hush.wav", tone() * 0.003)
    save(tmp_path / "two hours.flac", np.zeros(1000 * 7200, np.int16), 1000)
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "notes.docx").write_bytes(b"x")
    corpus = open_corpus(tmp_path)
    utterances, rejected = run(corpus)
    assert {u.id for u in utterances} == {Path(name).stem for name in good}
    assert all(u.waveform.shape == (1, 8000) for u in utterances)
    found = reasons(corpus.rejections + rejected)
    expected = {
        "empty.wav": "empty file",
        "text.mp3": "not audio",
        "half.wav": "truncated",
        "cut.flac": "truncated",
        "cut.wav": "truncated",
        "nan.wav": "NaN",
        "nothing.wav": "no samples",
        "silence.wav": "under -60 dBFS",
        "hush.wav": "under -60 dBFS",
        "two hours.flac": "the limit is 3600 s",
        "dangling.wav": "link to a file that does not exist",
        "pipe.wav": "not a regular file",
        "notes.docx": "not audio by its name (.docx)",
    }
    assert set(found) == set(expected)
    for name, reason in expected.items():
        assert reason in found[name], (name, found[name])


@pytest.mark.parametrize("suffix", [".caf", ".w64", ".wav"])
def test_headers_that_point_outside_the_file_stop_no_corpus(tmp_path, suffix):
    kind = "W64" if suffix == ".w64" else "CAF"
    sf.write(tmp_path / f"bad{suffix}", tone(), 16000, format=kind)
    data = bytearray((tmp_path / f"bad{suffix}").read_bytes())
    data[56] = 0x7F
    (tmp_path / f"bad{suffix}").write_bytes(data)
    save(tmp_path / "good.wav")
    corpus = open_corpus(tmp_path)
    utterances, rejected = run(corpus)
    assert [u.id for u in utterances] == ["good"]
    assert list(reasons(rejected)) == [f"bad{suffix}"]


def test_a_name_that_is_not_unicode(tmp_path):
    name = os.fsdecode(b"bad\xff.wav")
    save(tmp_path / "ok.wav").rename(tmp_path / name)
    corpus = open_corpus(tmp_path)
    assert corpus.entries[0].id == r"bad\xff"
    json.dumps(corpus.entries[0].source).encode()
    utterances, rejected = run(corpus)
    assert len(utterances) == 1 and not rejected


def test_equal_stems_with_other_suffixes_are_two_utterances(tmp_path):
    for name, hertz in (("a.wav", 300), ("a.flac", 400), ("a.flac.wav", 500), ("b.wav", 600)):
        save(tmp_path / name, tone(hertz=hertz))
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,three\na.flac,four\n")
    corpus = open_corpus(tmp_path)
    assert corpus.rejections == []
    assert {e.id: e.text for e in corpus.entries} == {
        "a.wav": "three",
        "a.flac": "four",
        "a.flac.wav": None,
        "b": None,
    }
    waveforms = {u.id: u.waveform for u in run(corpus)[0]}
    assert not waveforms["a.wav"].allclose(waveforms["a.flac"], atol=0.1)
    assert {e.split for e in corpus.entries if e.text} == {assign_split("a")}
    (tmp_path / "a.wav").unlink()
    (tmp_path / "a.flac.wav").unlink()
    assert [e.id for e in open_corpus(tmp_path).entries] == ["a", "b"]


def test_split_from_the_top_folder(tmp_path):
    for name in ("train/a.wav", "dev/b.wav", "test/speaker/c.wav"):
        save(tmp_path / name)
    corpus = open_corpus(tmp_path)
    assert {e.id: e.split for e in corpus.entries} == {
        "train/a": "train",
        "dev/b": "validation",
        "test/speaker/c": "test",
    }
    assert [e.id for e in open_corpus(tmp_path, split="test").entries] == ["test/speaker/c"]
    with pytest.raises(ValueError, match=r"no split 'tset'; it has 'validation', 'test', 'train'"):
        open_corpus(tmp_path, split="tset")
