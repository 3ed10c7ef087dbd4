"""Encode and decode audio files by the name of a codec or with the codec itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import make_stft_codec
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.codes_file import read_codes
from tokgen.bitstream.files import decode_file, encode_file
from tokgen.zoo.stft import StftCodec


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    write_audio(tmp_path / "a.wav", make_tone(0.7, 0), 16000)
    return tmp_path / "a.wav"


def test_names_and_objects_give_the_same(
    wav: Path, tiny_codec: StftCodec, tiny_codec_folder: Path, tmp_path: Path
) -> None:
    by_object = encode_file(wav, tiny_codec)
    by_name = encode_file(str(wav), tiny_codec_folder, tmp_path / "a.safetensors", device="cpu")
    waveform, _ = read_audio(wav)
    assert torch.equal(by_object.codes, tiny_codec.encode(waveform[None])[0])
    assert torch.equal(by_object.codes, by_name.codes)
    assert by_object.path is None and by_name.path == tmp_path / "a.safetensors"
    assert torch.equal(read_codes(by_name.path).codes, by_name.codes)
    for source in (by_object, by_name.path, str(by_name.path)):
        found = decode_file(source, tmp_path / "b.wav", tiny_codec)
        assert (found.n_samples, found.sample_rate) == (11200, 16000)
        decoded, rate = read_audio(tmp_path / "b.wav")
        assert rate == 16000 and decoded.shape == waveform.shape


def test_results_say_what_was_made(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    encoded = encode_file(wav, tiny_codec, tmp_path / "a.safetensors", n_codebooks=2)
    assert str(encoded) == f"{tmp_path / 'a.safetensors'}: 2 levels x 35 frames, 0.70 s"
    content = encoded.to_dict()
    assert (content["n_codebooks"], content["n_frames"], content["seconds"]) == (2, 35, 0.7)
    assert content["codec"] == "tiny" and "codes" not in content
    decoded = decode_file(encoded, tmp_path / "b.flac", tiny_codec)
    assert str(decoded) == f"{tmp_path / 'b.flac'}: 0.70 s"
    assert decoded.to_frame()["n_samples"].tolist() == [11200]


def test_another_codec_is_refused(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    encoded = encode_file(wav, tiny_codec)
    with pytest.raises(ValueError, match="by codec 'tiny'"):
        decode_file(encoded, tmp_path / "b.wav", make_stft_codec(4, name="other"))
    assert not (tmp_path / "b.wav").exists()
