"""Compress and decompress several files and folders, in one process and in several."""

from __future__ import annotations

from pathlib import Path

import pytest

from makers.audio import make_tone
from makers.codecs import make_stft_codec, save_codec
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.named_codecs import NamedCodecs
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


def test_a_file_may_name_several_codecs(
    speech: Path, tiny_codec: StftCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, joined = make_stft_codec(seed=5, name="other"), tmp_path / "out" / "joined.tgc"
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path / "zoo"))
    for codec in (tiny_codec, other):
        compress_files([speech / "a.wav"], codec, tmp_path / f"{codec.spec.name}.tgc")
    joined.parent.mkdir()
    joined.write_bytes(b"".join((tmp_path / f"{x}.tgc").read_bytes() for x in ("tiny", "other")))
    save_codec(tiny_codec, tmp_path / "zoo" / "tiny")
    done = decompress_files([joined], f"{tmp_path}/audio/")
    [failure] = done.failures
    assert str(failure).startswith(f"{joined}: made by codec 'other', which is not in the zoo: ")
    save_codec(other, tmp_path / "zoo" / "other")
    done = decompress_files([joined], f"{tmp_path}/audio/")
    assert [result.n_samples for result in done.results] == [9600]
    codecs = NamedCodecs(device="cpu")
    assert codecs.find("other") is codecs.find("other") and codecs.find("other") is not other


def test_wrong_settings_stop_before_the_first_file(
    speech: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    for settings, message in (
        ({"bitrate": 0.1}, "0.1 kbps: tiny takes"),
        ({"n_codebooks": 9}, "n_codebooks = 9"),
        ({"entropy": "pakced"}, "did you mean packed"),
        ({"block_seconds": 0}, "block_seconds = 0"),
        ({"beam": 0}, "beam"),
    ):
        with pytest.raises(ValueError, match=message):
            compress_files([speech], tiny_codec, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


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
