"""Compress and decompress several files and folders, in one process and in several."""

from __future__ import annotations

from pathlib import Path

import pytest

from makers.audio import make_tone
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.outputs import plan_tree
from tokgen.bitstream.tgc_batch import compress_files, decompress_files
from tokgen.zoo.stft import StftCodec


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    for i, name in enumerate(("a.wav", "deep/b.flac", "deep/c.wav")):
        write_audio(tmp_path / "speech" / name, make_tone(0.3 + 0.1 * i, i), 16_000)
    (tmp_path / "speech" / "notes.txt").write_text("no audio")
    return tmp_path / "speech"


@pytest.mark.parametrize("jobs", [1, 2])
def test_folders_keep_their_places(
    speech: Path, tiny_codec: StftCodec, tmp_path: Path, jobs: int
) -> None:
    (speech / "deep" / "bad.wav").write_bytes(b"RIFF")
    done = compress_files([speech], tiny_codec, tmp_path / "out", jobs=jobs)
    assert [r.path.relative_to(tmp_path / "out").as_posix() for r in done.results] == [
        "a.tgc", "deep/b.tgc", "deep/c.tgc",
    ]  # fmt: skip
    assert [Path(f.file).name for f in done.failures] == ["bad.wav"] and done.exit_code == 1
    back = decompress_files([tmp_path / "out"], tmp_path / "audio", tiny_codec, jobs=jobs)
    assert [r.n_samples for r in back.results] == [4800, 6400, 8000] and back.exit_code == 0
    assert read_audio(tmp_path / "audio" / "deep" / "c.wav")[0].shape[-1] == 8000


def test_processes_write_the_same_bytes(
    speech: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    files = [speech / "a.wav", speech / "deep"]
    for jobs in (1, 3):
        compress_files(files, tiny_codec, tmp_path / str(jobs), jobs=jobs)
    for name in ("a.tgc", "b.tgc", "c.tgc"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_codecs_are_found_by_the_names_in_the_files(
    speech: Path,
    tiny_codec: StftCodec,
    tiny_codec_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compress_files([speech], tiny_codec, tmp_path / "out")
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    data = bytearray((tmp_path / "out" / "a.tgc").read_bytes())
    data[data.index(b"TGCB") + 30] ^= 1
    (tmp_path / "out" / "a.tgc").write_bytes(data)
    done = decompress_files([tmp_path / "out"], tmp_path / "audio", format="flac", device="cpu")
    assert len(done.results) == 3 and done.failures == []
    assert done.results[0].problems and done.exit_code == 1


def test_wrong_folders_and_jobs_are_refused(
    speech: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.tgc files in"):
        decompress_files([speech], tmp_path / "audio", tiny_codec)
    with pytest.raises(ValueError, match="jobs is 0"):
        compress_files([speech], tiny_codec, tmp_path / "out", jobs=0)
    compress_files([speech], tiny_codec, tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"a\.tgc already exists"):
        compress_files([speech], tiny_codec, tmp_path / "out")
    twin = tmp_path / "twin"
    write_audio(twin / "a.wav", make_tone(0.3, 0), 16_000)
    with pytest.raises(ValueError, match="would both be written"):
        plan_tree([speech, twin], tmp_path / "new", ".tgc", [".wav"])


def test_links_that_lead_out_of_a_folder_are_not_followed(speech: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "secret.wav", make_tone(0.3, 0), 16_000)
    (speech / "link.wav").symlink_to(tmp_path / "secret.wav")
    (speech / "inside.wav").symlink_to(speech / "a.wav")
    inputs, _ = plan_tree([speech], tmp_path / "out", ".tgc", [".wav"])
    assert sorted(p.name for p in inputs) == ["a.wav", "c.wav", "inside.wav"]
