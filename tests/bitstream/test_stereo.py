"""Stereo audio goes through code files and .tgc files, with side information."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from makers.audio import make_tone
from makers.codecs import make_encodec
from tokgen.audio.files import AudioError, read_audio, write_audio
from tokgen.bitstream.codes_file import read_codes, write_codes
from tokgen.bitstream.files import decode_file, encode_file
from tokgen.bitstream.tgc_files import compress_file, decompress_file
from tokgen.codec.long_audio import decode_audio_file

RATE = 8000


@pytest.fixture(scope="module")
def codec():
    return make_encodec("encodec-48k")


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """A stereo, a mono and a file of three channels, as wav files of 2.3 s."""
    both = torch.cat([make_tone(2.3, 1, RATE), 0.4 * make_tone(2.3, 2, RATE)])
    made = {"stereo": both, "mono": both[:1], "three": both[:1].expand(3, -1)}
    for name, audio in made.items():
        write_audio(tmp_path / f"{name}.wav", audio, RATE)
    return {name: tmp_path / f"{name}.wav" for name in made}


@pytest.mark.parametrize(("name", "channels"), [("stereo", 2), ("mono", 1)])
def test_a_decoded_file_has_the_channels_of_the_original(codec, files, tmp_path, name, channels):
    audio, _ = read_audio(files[name], channels=2)
    encoded = codec.encode_with_side(audio[None])
    wanted = codec.decode(encoded.codes, audio.shape[-1], encoded.side, mono=channels == 1)
    write_audio(tmp_path / "wanted.wav", wanted[0], RATE)
    found = encode_file(files[name], codec, tmp_path / "a.safetensors")
    again = read_codes(tmp_path / "a.safetensors")
    for codes in (found, again):
        assert codes.codes.equal(encoded.codes[0]) and codes.channels == channels
        assert codes.side["scales"].equal(encoded.side["scales"][0])
    decode_file(tmp_path / "a.safetensors", tmp_path / "a.wav", codec)
    compress_file(files[name], codec, tmp_path / "a.tgc", entropy="packed")
    decompress_file(tmp_path / "a.tgc", tmp_path / "b.wav", codec)
    assert len(wanted[0]) == channels
    for out in ("a.wav", "b.wav"):
        assert (tmp_path / out).read_bytes() == (tmp_path / "wanted.wav").read_bytes()


def test_files_of_more_channels_are_refused(codec, files, tmp_path):
    for work, suffix in ((encode_file, "safetensors"), (compress_file, "tgc")):
        with pytest.raises(AudioError, match="has 3 channels, but must have 1 or 2"):
            work(files["three"], codec, tmp_path / f"a.{suffix}")
    assert not list(tmp_path.glob("a.*"))


def test_a_mono_codec_gets_the_mean_of_all_channels(files, tmp_path):
    codec = make_encodec("encodec-24k")
    for name in files:
        found = encode_file(files[name], codec, tmp_path / "a.safetensors", overwrite=True)
        mean = read_audio(files[name])[0]
        assert found.codes.equal(codec.encode(mean[None])[0]) and found.channels == 1
        with safe_open(str(tmp_path / "a.safetensors"), framework="pt") as file:
            assert "channels" not in file.metadata()


def test_a_codes_file_without_channels_is_decoded_to_mono(codec, files, tmp_path):
    """As before there were channels: the audio had been mixed."""
    audio, _ = read_audio(files["stereo"])
    encoded = codec.encode_with_side(audio[None])
    side = {name: values[0] for name, values in encoded.side.items()}
    write_codes(tmp_path / "old", encoded.codes[0], audio.shape[-1], codec.spec, side)
    decode_file(tmp_path / "old", tmp_path / "old.wav", codec)
    decode_audio_file(codec, encoded.codes, audio.shape[-1], tmp_path / "mono.wav", encoded.side)
    assert (tmp_path / "old.wav").read_bytes() == (tmp_path / "mono.wav").read_bytes()
    assert read_audio(tmp_path / "old.wav", channels=2)[0].shape[0] == 1


def test_channels_that_the_codec_does_not_have_are_refused(codec, files, tmp_path):
    found = encode_file(files["stereo"], codec)
    side = {"scales": found.side["scales"]}
    write_codes(tmp_path / "a", found.codes, found.n_samples, codec.spec, side, channels=5)
    with pytest.raises(ValueError, match="channels 5, but 'encodec-48k' has 2"):
        decode_file(tmp_path / "a", tmp_path / "a.wav", codec)
