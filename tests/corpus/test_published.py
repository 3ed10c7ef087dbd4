"""Published corpora, opened by the name of their layout."""

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from makers.corpora import audio_bytes, run, save, tone, upload
from tokgen.corpus import published
from tokgen.corpus.excerpts import sample_excerpts
from tokgen.corpus.layouts import LAYOUTS, find_layout
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.corpus.settings import check_corpus


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def rows(corpus: Corpus) -> dict[str, tuple]:
    """Return split, speaker, language and text by id."""
    return {e.id: (e.split, e.speaker, e.language, e.text) for e in corpus.entries}


def test_ljspeech(tmp_path):
    for i in (1, 2):
        save(tmp_path / f"LJSpeech-1.1/wavs/LJ001-000{i}.wav")
    lines = ["LJ001-0001|in 1843|in eighteen", 'LJ001-0002|"quoted|', "LJ001-0009|gone|gone"]
    write(tmp_path / "LJSpeech-1.1/metadata.csv", "\n".join(lines))
    corpus = open_corpus(f"ljspeech:{tmp_path}/LJSpeech-1.1")
    assert rows(corpus) == {
        "LJ001-0001": ("train", "LJ", "en", "in eighteen"),
        "LJ001-0002": ("train", "LJ", "en", '"quoted'),
    }
    assert [str(r) for r in corpus.rejections] == [
        "LJ001-0009: missing file: the tables of LJSpeech-1.1 name it"
    ]
    plain = open_corpus(tmp_path / "LJSpeech-1.1")
    assert [e.split for e in plain.entries] == [e.split for e in corpus.entries]
    assert corpus.entries[0].seconds == 0.5 and len(run(corpus)[0]) == 2


def test_vctk(tmp_path):
    root = tmp_path / "VCTK-Corpus-0.92"
    for speaker, mics in (("p225", (1, 2)), ("p262", (1, 2)), ("p280", (1,)), ("s5", (1, 2))):
        for mic in mics:
            save(root / f"wav48_silence_trimmed/{speaker}/{speaker}_001_mic{mic}.flac")
        write(root / f"txt/{speaker}/{speaker}_001.txt", "Please call Stella.\n")
    write(root / "speaker-info.txt", "ID  AGE\n")
    (root / "txt/s5/s5_001.txt").unlink()
    corpus = open_corpus(f"vctk:{root}")
    assert rows(corpus) == {
        "p225_001": ("train", "p225", "en", "Please call Stella."),
        "p262_001": ("test", "p262", "en", "Please call Stella."),
        "p280_001": ("train", "p280", "en", "Please call Stella."),
        "s5_001": ("train", "s5", "en", None),
    }
    assert all("mic1" in entry.source for entry in corpus.entries) and not corpus.rejections
    second = open_corpus(f"vctk-mic2:{root}")
    assert [e.id for e in second.entries] == ["p225_001", "p262_001", "s5_001"]
    assert all("mic2" in entry.source for entry in second.entries)


def test_libritts(tmp_path):
    root = tmp_path / "LibriTTS"
    published = ("dev-clean", "test-other", "train-clean-100", "train-other-500")
    for speaker, split in enumerate(published, 90):
        clip = root / split / f"{speaker}/1241/{speaker}_1241_000000_000001"
        save(Path(f"{clip}.wav"), rate=24000)
        write(Path(f"{clip}.normalized.txt"), f"Doctor {split}")
        write(Path(f"{clip}.original.txt"), f"Dr. {split}")
    corpus = open_corpus(f"libritts:{root}")
    assert corpus.splits == dict.fromkeys(published, 1)
    assert rows(corpus)["90_1241_000000_000001"] == ("dev-clean", "90", "en", "Doctor dev-clean")
    assert open_corpus(f"libritts:{root}", split="train").splits == {"train": 2}
    assert open_corpus(f"libritts:{root}", split="train-clean-100").splits == {"train-clean-100": 1}
    assert corpus.with_plain_splits().splits == {"validation": 1, "test": 1, "train": 2}
    only = open_corpus(f"libritts:{root}/dev-clean")
    assert [e.split for e in only.entries] == ["dev-clean"]
    with pytest.raises(ValueError, match="no split 'val'"):
        open_corpus(f"libritts:{root}", split="val")


def test_expresso(tmp_path):
    root = tmp_path / "expresso"
    read = root / "audio_48khz/read/ex01"
    for name in ("happy/base/ex01_happy_00001", "happy/base/ex01_happy_00002"):
        save(read / f"{name}.wav", tone(0.5, 48000), 48000)
    save(read / "default/longform/ex01_default_longform_00001.wav", tone(3.0))
    save(read / "singing/base/ex01_singing_001.wav")
    save(root / "audio_48khz/conversational/ex01-ex02/angry/ex01-ex02_angry_001.wav", tone(4.0))
    write(root / "read_transcriptions.txt", "ex01_happy_00001\tHello!\nex01_happy_00002\tBye\n")
    write(
        root / "splits/train.txt",
        "# {filename}\nex01_happy_00001\nex01_default_longform_00001\t"
        "(2.0s,)\nex01-ex02_angry_001\t(3.0s,)\n",
    )
    write(root / "splits/dev.txt", "ex01_default_longform_00001\t(,1.25s)\n")
    write(root / "splits/test.txt", "ex01_happy_00002\nex01-ex02_angry_001\t(1.5s,3.0s)\n")
    write(root / "splits/README", "EXPRESSO SPLITS\n")
    corpus = open_corpus(f"expresso:{root}")
    assert rows(corpus) == {
        "ex01-ex02_angry_001@1.500": ("test", "ex01-ex02", "en", None),
        "ex01-ex02_angry_001@3.000": ("train", "ex01-ex02", "en", None),
        "ex01_default_longform_00001@0.000": ("validation", "ex01", "en", None),
        "ex01_default_longform_00001@2.000": ("train", "ex01", "en", None),
        "ex01_happy_00001": ("train", "ex01", "en", "Hello!"),
        "ex01_happy_00002": ("test", "ex01", "en", "Bye"),
    }, "the song is in no published split"
    assert not corpus.rejections
    heard = {u.id: u.waveform.shape[-1] / 16000 for u in run(pickle.loads(pickle.dumps(corpus)))[0]}
    assert heard == {e.id: e.seconds for e in corpus.entries}
    assert list(heard.values()) == [1.5, 1.0, 1.25, 1.0, 0.5, 0.5]
    excerpts = sample_excerpts(corpus, n=20, seconds=0.3, seed=0)
    assert len(run(excerpts)[0]) == 20
    (root / "splits/dev.txt").write_text("ex01_default_longform_00001\t(,1.0s)\n")
    assert open_corpus(f"expresso:{root}").fingerprint != corpus.fingerprint
    for name in ("train", "dev", "test"):
        (root / f"splits/{name}.txt").unlink()
    with pytest.raises(ValueError, match=r"none of the files that list its splits \(splits/train"):
        open_corpus(f"expresso:{root}")


def test_daps(tmp_path):
    for name in (
        "clean/f1_script1_clean",
        "clean/f10_script1_clean",
        "clean/m10_script5_clean",
        "ipad_office1/f1_script1_ipad_office1",
        "clean/._f1_script1_clean",
    ):
        save(tmp_path / f"daps/{name}.wav")
    corpus = open_corpus(f"daps:{tmp_path}/daps")
    assert rows(corpus) == {
        "f10_script1_clean": ("test", "f10", "en", None),
        "f1_script1_clean": ("train", "f1", "en", None),
        "m10_script5_clean": ("test", "m10", "en", None),
    }
    assert not corpus.rejections
    assert len(open_corpus(f"daps:{tmp_path}/daps/clean")) == 3


def test_common_voice(tmp_path):
    root = tmp_path / "cv-corpus-17.0-2024-03-15"
    header = "client_id\tpath\tsentence\tup_votes\tlocale\n"
    for language in ("en", "fr"):
        for i in range(4):
            save(root / f"{language}/clips/common_voice_{language}_{i}.mp3")
        for i, split in enumerate(("train", "dev", "test")):
            write(
                root / f"{language}/{split}.tsv",
                f'{header}abc{i}\tcommon_voice_{language}_{i}.mp3\tSay "{i}\t2\t{language}\n',
            )
        write(
            root / f"{language}/validated.tsv",
            f"{header}x\tcommon_voice_{language}_3.mp3\tno\t2\t{language}\n",
        )
        write(
            root / f"{language}/clip_durations.tsv",
            f"clip\tduration[ms]\ncommon_voice_{language}_0.mp3\t777\n",
        )
    corpus = open_corpus(f"commonvoice:{root}/en")
    assert rows(corpus) == {
        "common_voice_en_0": ("train", "abc0", "en", 'Say "0'),
        "common_voice_en_1": ("validation", "abc1", "en", 'Say "1'),
        "common_voice_en_2": ("test", "abc2", "en", 'Say "2'),
    }, "the validated clip is in no split"
    assert corpus.entries[0].seconds == 0.777
    both = open_corpus(f"commonvoice:{root}", where="language=fr", split="test")
    assert [e.id for e in both.entries] == ["common_voice_fr_2"]


def test_hub_datasets_have_the_columns_of_these_tables(tmp_path):
    def cell(name: str) -> dict:
        return {"bytes": audio_bytes(tmp_path, 300), "path": name}

    vctk = {
        "speaker_id": ["p225", "p225", "p262"],
        "text": ["a", "a", "b"],
        "audio": [cell(f"{n}.flac") for n in ("p225_001_mic1", "p225_001_mic2", "p262_003_mic1")],
    }
    DatasetDict({"train": Dataset.from_dict(vctk)}).save_to_disk(tmp_path / "vctk")
    assert rows(open_corpus(f"vctk:{tmp_path}/vctk")) == {
        "p225_001": ("train", "p225", "en", "a"),
        "p262_003": ("test", "p262", "en", "b"),
    }
    libritts = {
        "audio": [cell("84_1_000000_000000.wav")],
        "text_normalized": ["Doctor"],
        "text_original": ["Dr."],
        "speaker_id": ["84"],
        "id": ["84_1_000000_000000"],
    }
    DatasetDict({"dev.clean": Dataset.from_dict(libritts)}).save_to_disk(tmp_path / "libritts")
    corpus = open_corpus(f"libritts:{tmp_path}/libritts", split="dev-clean")
    assert rows(corpus) == {"84_1_000000_000000": ("dev-clean", "84", "en", "Doctor")}
    lj = {
        "id": ["LJ001-0001"],
        "audio": [cell("LJ001-0001.wav")],
        "file": ["/x/LJ001-0001.wav"],
        "text": ["in 1843"],
        "normalized_text": ["in eighteen"],
    }
    pq.write_table(pa.table(lj), tmp_path / "train.parquet")
    assert rows(open_corpus(f"ljspeech:{tmp_path}/train.parquet")) == {
        "LJ001-0001": ("train", "LJ", "en", "in eighteen")
    }
    voice = {
        "client_id": ["abc"],
        "path": ["en_1.mp3"],
        "audio": [cell("en_1.mp3")],
        "sentence": ["Hi"],
        "locale": ["en"],
    }
    pq.write_table(pa.table(voice), tmp_path / "test.parquet")
    assert rows(open_corpus(f"commonvoice:{tmp_path}/test.parquet")) == {
        "en_1": ("test", "abc", "en", "Hi")
    }


def test_a_layout_is_named_before_the_folder(tmp_path):
    assert find_layout("vctk:/data/VCTK") == (LAYOUTS["vctk"], "/data/VCTK")
    for other in ("/data/VCTK", "owner/name:config", "s3://bucket/x", "vctk://x", "vctk:"):
        assert find_layout(other) == (None, other)
    check_corpus(f"daps:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        check_corpus(f"daps:{tmp_path}/nothing")
    with pytest.raises(FileNotFoundError, match=r"did you mean vctk\?"):
        open_corpus(f"vtck:{tmp_path}")
    save(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"no audio in the layout of DAPS.*clean/f1_script1_clean"):
        open_corpus(f"daps:{tmp_path}")
    with pytest.raises(ValueError, match="leave out the layout's name to open a stream"):
        open_corpus(f"daps:{tmp_path}", streaming=True)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_example_of_a_layout_fits_it(name):
    layout = LAYOUTS[name]
    assert layout.audio.fullmatch(layout.example)
    assert layout.audio.fullmatch(f"deep/in/a/{layout.example}")


def test_a_published_corpus_behind_a_url(tmp_path):
    clip = tmp_path / "LibriTTS/test-clean/7/5/7_5_000000_000000"
    save(clip.with_suffix(".wav"))
    write(clip.with_suffix(".normalized.txt"), "Hello")
    url = f"memory://{uuid.uuid4().hex}/LibriTTS"
    upload(tmp_path / "LibriTTS", url)
    corpus = open_corpus(f"libritts:{url}")
    assert rows(corpus) == {"7_5_000000_000000": ("test-clean", "7", "en", "Hello")}
    assert len(run(corpus)[0]) == 1


def test_damaged_tables_are_named_and_leave_the_memory_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "LONGEST_LINE", 100)
    root = tmp_path / "expresso"
    for i in range(3):
        save(root / f"audio_48khz/read/ex01/happy/base/ex01_happy_{i}.wav")
    write(root / "splits/train.txt", "ex01_happy_0\nex01_happy_1\t(2.0s,1.0s)\n")
    write(root / "splits/dev.txt", "ex01_happy_2\n" + 200 * "x")
    write(root / "read_transcriptions.txt", "ex01_happy_0\tone\nno tab\nex01_happy_2\t\x00two\n")
    corpus = open_corpus(f"expresso:{root}")
    assert {e.id: e.split for e in corpus.entries} == {
        "ex01_happy_0": "train", "ex01_happy_2": "validation"
    }  # fmt: skip
    assert sorted(Path(r.source).name for r in corpus.rejections) == ["dev.txt", "train.txt"]
    assert "line of over 100 characters" in str(corpus.rejections)
    assert "is no span of time" in str(corpus.rejections)
