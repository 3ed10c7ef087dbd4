"""Encode and decode several files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from makers.audio import make_tone
from tokgen.audio.encoders import WRITTEN
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream import batch
from tokgen.bitstream.batch import decode_files, encode_files
from tokgen.bitstream.codes_file import read_codes
from tokgen.bitstream.outputs import AUDIO, plan_outputs
from tokgen.cli.settings import Decode
from tokgen.zoo.stft import StftCodec


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.wav", "b.flac", "c.wav")]
    for i, path in enumerate(paths):
        write_audio(path, make_tone(0.2 + 0.1 * i, i), 16000)
    return paths


def test_files_are_encoded_into_a_folder_and_decoded(
    files: list[Path], tiny_codec: StftCodec, tmp_path: Path
) -> None:
    done = encode_files(files, tiny_codec, tmp_path / "codes")
    codes = [tmp_path / "codes" / f"{stem}.safetensors" for stem in "abc"]
    assert [result.path for result in done.results] == codes and done.failures == []
    assert [read_codes(path).n_samples for path in codes] == [3200, 4800, 6400]
    assert str(done).count("\n") == 2
    decode_files(codes, tmp_path / "audio", tiny_codec, format="flac")
    lengths = [read_audio(tmp_path / "audio" / f"{stem}.flac")[0].shape[-1] for stem in "abc"]
    assert lengths == [3200, 4800, 6400]


def test_files_are_encoded_with_a_beam_search(
    files: list[Path], tiny_codec: StftCodec, tmp_path: Path
) -> None:
    done = encode_files(files, tiny_codec, tmp_path / "codes", beam=4)
    assert [read_codes(result.path).beam for result in done.results] == [4, 4, 4]


def test_a_bad_file_does_not_stop_the_rest(
    files: list[Path], tiny_codec: StftCodec, tiny_codec_folder: Path, tmp_path: Path
) -> None:
    files[1].write_bytes(b"")
    done = encode_files([*files, "none.wav"], tiny_codec, tmp_path / "codes")
    codes = sorted((tmp_path / "codes").iterdir())
    assert [path.name for path in codes] == ["a.safetensors", "c.safetensors"]
    bad, missing = done.failures
    assert str(bad) == f"{files[1]}: empty file (0 bytes)"
    assert str(missing) == "none.wav: no such file"
    assert str(done).endswith("2 written, 2 failed")
    assert [list(d)[-1] for d in done.to_list()] == ["side_names", "side_names", "error", "error"]
    codes[0].write_bytes(b"noise")
    done = decode_files(codes, tmp_path / "audio", tiny_codec_folder)
    assert [path.name for path in (tmp_path / "audio").iterdir()] == ["c.wav"]
    assert [failure.file for failure in done.failures] == [str(codes[0])]


def test_names_of_outputs(tmp_path: Path) -> None:
    def planned(*files: str, out: object = tmp_path) -> list[str]:
        return [str(path) for path in plan_outputs(files, str(out), ".safetensors")]

    new = tmp_path / "new"
    assert planned("x/a.wav") == [f"{tmp_path}/a.safetensors"]
    assert planned("a.wav", out=new) == [str(new)]
    assert planned("a.wav", out=f"{new}/") == [f"{new}/a.safetensors"]
    assert planned("a.wav", "b.wav", out=new) == [f"{new}/a.safetensors", f"{new}/b.safetensors"]
    same = [f"{tmp_path}/a.wav.safetensors", f"{tmp_path}/a.flac.safetensors"]
    assert planned("a.wav", "a.flac") == same
    for pair in (("x/a.wav", "y/a.wav"), ("a.wav", "a.wav"), ("A.wav", "a.wav")):
        with pytest.raises(ValueError, match=r"would both be written to .*a\.wav\.safetensors"):
            planned(*pair)
    with pytest.raises(ValueError, match=r"c\.safetensors is a file: give a folder for 2 files"):
        planned("a.wav", "b.wav", out="c.safetensors")


def test_existing_outputs_stop_before_the_first_file(
    files: list[Path], tiny_codec: StftCodec, tmp_path: Path
) -> None:
    (tmp_path / "c.safetensors").touch()
    with pytest.raises(FileExistsError, match=r"c\.safetensors already exists"):
        encode_files(files, tiny_codec, tmp_path)
    assert not (tmp_path / "a.safetensors").exists()
    encode_files(files, tiny_codec, tmp_path, overwrite=True)
    assert (tmp_path / "c.safetensors").stat().st_size
    with pytest.raises(ValueError, match="n_codebooks = 9"):
        encode_files(files, tiny_codec, tmp_path / "other", n_codebooks=9)


def test_a_full_disk_stops(
    files: list[Path], tiny_codec: StftCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=r"a\.safetensors: no space is left on the disk"):
        batch.encode_files(files, tiny_codec, tmp_path / "codes")
    assert list((tmp_path / "codes").iterdir()) == []


def test_the_formats_are_those_of_the_writer() -> None:
    assert tuple(f".{kind}" for kind in WRITTEN) == AUDIO
    assert get_args(get_type_hints(Decode)["format"])[0].__args__ == WRITTEN
