"""Codes files of a variable bitrate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from makers.audio import make_tone
from makers.codecs import assert_same, make_stft_codec, make_variable, save_codec
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.batch import encode_files
from tokgen.bitstream.codes_file import read_codes, write_codes
from tokgen.bitstream.files import decode_file, encode_file
from tokgen.codec.base import Codec
from tokgen.codec.depth import mean_kbps
from tokgen.codec.spec import Encoded


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    write_audio(tmp_path / "a.wav", make_tone(1.3, 0), 16000)
    return tmp_path / "a.wav"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_variable(None)


@pytest.mark.parametrize("rate", [{"level": 0.9}, {"bitrate": 0.7}], ids=str)
def test_a_file_decodes_at_its_depth(wav: Path, codec: Codec, tmp_path: Path, rate: dict) -> None:
    path = tmp_path / "a.safetensors"
    encoded = encode_file(wav, codec, path, **rate)
    expected = codec.encode_with_side(read_audio(wav)[0][None], **rate)
    found = read_codes(path)
    for one in (encoded, found):
        side = {name: values[None] for name, values in one.side.items()}
        assert_same(Encoded(one.codes[None], side), expected)
    assert found.depth is not None and found.depth.dtype == torch.int64
    stored = load_file(path)
    assert set(stored) == {"codes", "depth"} and stored["depth"].dtype == torch.uint8
    decode_file(path, tmp_path / "b.wav", codec)
    audio = codec.decode(expected.codes, encoded.n_samples, expected.side)
    write_audio(tmp_path / "c.wav", audio[0], 16000)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "c.wav").read_bytes()
    kbps = mean_kbps(found.depth, codec.spec)
    assert found.kbps == pytest.approx(kbps, abs=1e-6) and encoded.kbps == kbps
    mean = found.depth.double().mean()
    assert str(found) == f"{path}: {mean:.2f} of 4 levels x 65 frames, 1.30 s, {kbps:.2f} kbps"
    assert found.to_dict()["mean_depth"] == mean and found.to_dict()["kbps"] == found.kbps


def test_several_files_few_levels_and_a_grid(wav: Path, codec: Codec, tmp_path: Path) -> None:
    out, settings = f"{tmp_path}/new/", {"level": 2.0, "n_codebooks": 3, "grid": 5}
    [one] = encode_files([wav], codec, out, **settings).results
    audio = read_audio(wav)[0][None]
    expected = codec.encode_with_side(audio, 3, grid=5, level=2.0)
    found = read_codes(one.path)
    assert found.codes.equal(expected.codes[0]) and found.depth is not None
    assert set(found.side) == {"depth", "lead"} and found.depth.equal(expected.depth[0])
    assert int(found.depth.max()) == 3
    decode_file(found, tmp_path / "b.wav", codec)
    heard = codec.decode(expected.codes, found.n_samples, expected.side)
    assert read_audio(tmp_path / "b.wav")[0].sub(heard[0]).abs().max() < 1e-4


def test_a_named_view_is_found_again(
    wav: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKGEN_ZOO", str(save_codec(codec, tmp_path / "zoo" / "vary").parent))
    encoded = encode_file(wav, "vary:0.7", tmp_path / "a.safetensors", device="cpu")
    assert encoded.codec == "vary:0.7"
    assert encoded.codes.equal(encode_file(wav, codec, bitrate=0.7).codes)
    assert decode_file(tmp_path / "a.safetensors", tmp_path / "b.wav").codec == "vary:0.7"
    plain = encode_file(wav, "vary", tmp_path / "c.safetensors", bitrate=0.7)
    assert plain.codec == "vary" and plain.codes.equal(encoded.codes)
    decode_file(tmp_path / "c.safetensors", tmp_path / "d.wav")
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "d.wav").read_bytes()


def test_files_of_a_constant_bitrate_stay(wav: Path, codec: Codec, tmp_path: Path) -> None:
    found = encode_file(wav, codec, tmp_path / "a.safetensors")
    assert found.depth is None and found.kbps is None and "kbps" not in found.to_dict()
    with safe_open(str(tmp_path / "a.safetensors"), framework="pt") as file:
        assert set(file.keys()) == {"codes"} and "kbps" not in file.metadata()


def test_a_depth_among_side_information_is_read(wav: Path, codec: Codec, tmp_path: Path) -> None:
    found = encode_file(wav, codec, tmp_path / "a.safetensors", level=0.9)
    with safe_open(str(tmp_path / "a.safetensors"), framework="pt") as file:
        metadata = file.metadata()
    del metadata["kbps"]
    tensors = {"codes": found.codes.to(torch.uint16), "side.depth": found.side["depth"]}
    save_file(tensors, tmp_path / "b.safetensors", metadata)
    old = read_codes(tmp_path / "b.safetensors")
    assert found.depth is not None and old.depth is not None and old.depth.equal(found.depth)
    assert old.kbps is None and "of 4 levels" in str(old)


def test_wrong_rates(wav: Path, codec: Codec, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"level = 1.0: tiny has no variable bitrate"):
        encode_file(wav, make_stft_codec(name="tiny"), out, level=1.0)
    with pytest.raises(ValueError, match=r"level = 1.0 and bitrate = 2.0: give one of them"):
        encode_file(wav, codec, out, level=1.0, bitrate=2.0)
    with pytest.raises(ValueError, match="on this audio with n_codebooks = 2; choose one"):
        encode_file(wav, codec, out, bitrate=0.9, n_codebooks=2)
    encode_file(wav, codec, out, level=1.0)
    with pytest.raises(ValueError, match="stable decoding of codes of variable depth"):
        decode_file(out, tmp_path / "b.wav", codec, stable=True)
    assert not (tmp_path / "b.wav").exists()


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"depth": torch.ones(64, dtype=torch.uint8)}, {}, r"depth of shape \(64,\) U8: expected"),
        ({"depth": torch.ones(65)}, {}, r"depth of shape \(65,\) F32: expected \[65\] U8"),
        (
            {"depth": torch.zeros(65, dtype=torch.uint8)},
            {},
            r"depth spans 0..0, but must be in",
        ),
        ({"depth": torch.full((65,), 5, dtype=torch.uint8)}, {}, "depth spans 5..5"),
        ({"codes": torch.full((4, 65), 7, dtype=torch.uint16)}, {}, "codes past the depth"),
        ({}, {"kbps": "1e9"}, "kbps is '1e9', but must be a number"),
        ({}, {"kbps": "-1.0"}, "kbps is '-1.0'"),
    ],
)
def test_damage_is_named(
    wav: Path, codec: Codec, tmp_path: Path, tensors: dict, metadata: dict, message: str
) -> None:
    path = tmp_path / "a.safetensors"
    encode_file(wav, codec, path, level=0.9)
    with safe_open(str(path), framework="pt") as file:
        about = file.metadata()
    save_file(load_file(path) | tensors, path, about | metadata)
    with pytest.raises(ValueError, match=rf"a\.safetensors is damaged: .*{message}"):
        read_codes(path)


def test_only_the_depth_of_the_codes_is_written(codec: Codec, tmp_path: Path) -> None:
    codes, path = torch.ones(4, 2, dtype=torch.int64), tmp_path / "a.safetensors"
    for depth, message in ((torch.ones(3), "depth of shape"), (torch.ones(2), "codes past")):
        with pytest.raises(ValueError, match=message):
            write_codes(path, codes, 640, codec.spec, {"depth": depth})
    assert not path.exists()
