"""Encode and decode audio files by the name of a codec or with the codec itself."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import MAKERS, make_stft_codec, with_noise
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.codes_file import read_codes
from tokgen.bitstream.files import decode_file, encode_file, settings_for
from tokgen.codec.stable.settings import StableDecoding
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
        found = decode_file(source, tmp_path / "b.wav", tiny_codec, overwrite=True)
        assert (found.n_samples, found.sample_rate) == (11200, 16000)
        decoded, rate = read_audio(tmp_path / "b.wav")
        assert rate == 16000 and decoded.shape == waveform.shape


def test_a_codec_with_another_decoder_decodes_the_codes(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    made = encode_file(wav, tiny_codec, tmp_path / "a.safetensors")
    found, tuned = read_codes(tmp_path / "a.safetensors"), with_noise(tiny_codec, "decoder")
    assert found.encoder_hash == made.encoder_hash == tuned.spec.encoder_hash
    assert found.weight_hash == tiny_codec.spec.weight_hash != tuned.spec.weight_hash
    for source in (made, tmp_path / "a.safetensors"):
        decode_file(source, tmp_path / "b.wav", tuned, overwrite=True)
        decoded = read_audio(tmp_path / "b.wav")[0]
        expected = tuned.decode(made.codes[None], 11200)[0].clamp(-1, 1)
        torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"'tiny' \(encoder \w+\), not by 'noisy' \(encoder"):
        found.check_codec(with_noise(tiny_codec, "quantizer").spec)
    old = replace(found, encoder_hash="")  # of an older version
    old.check_codec(tiny_codec.spec)
    with pytest.raises(ValueError, match=r"'tiny' \(weights \w+\), not by 'noisy' \(weights"):
        old.check_codec(tuned.spec)


def test_results_say_what_was_made(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    encoded = encode_file(wav, tiny_codec, tmp_path / "a.safetensors", n_codebooks=2)
    assert str(encoded) == f"{tmp_path / 'a.safetensors'}: 2 levels x 35 frames, 0.70 s"
    content = encoded.to_dict()
    assert (content["n_codebooks"], content["n_frames"], content["seconds"]) == (2, 35, 0.7)
    assert content["codec"] == "tiny" and "codes" not in content
    decoded = decode_file(encoded, tmp_path / "b.flac", tiny_codec)
    assert str(decoded) == f"{tmp_path / 'b.flac'}: 0.70 s"
    assert decoded.to_frame()["n_samples"].tolist() == [11200]


def test_a_beam_search_is_recorded(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    encoded = encode_file(wav, tiny_codec, tmp_path / "a.safetensors", beam=4)
    waveform, _ = read_audio(wav)
    assert torch.equal(encoded.codes, tiny_codec.encode(waveform[None], beam=4)[0])
    found = read_codes(tmp_path / "a.safetensors")
    assert found.beam == encoded.beam == 4 and found.to_dict()["beam"] == 4
    assert encode_file(wav, tiny_codec.with_beam(8)).beam == 8
    greedy = encode_file(wav, tiny_codec)
    assert greedy.beam == 1 and not torch.equal(greedy.codes, encoded.codes)


def test_another_codec_is_refused(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    encoded = encode_file(wav, tiny_codec)
    with pytest.raises(ValueError, match="by codec 'tiny'"):
        decode_file(encoded, tmp_path / "b.wav", make_stft_codec(4, name="other"))
    assert not (tmp_path / "b.wav").exists()


def test_no_input_or_existing_file_is_overwritten(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    audio = wav.read_bytes()
    (tmp_path / "soft.safetensors").symlink_to(wav)
    os.link(wav, tmp_path / "hard.safetensors")
    for name in ("a.wav", "soft.safetensors", "hard.safetensors"):
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="is an input file"):
                encode_file(wav, tiny_codec, tmp_path / name, overwrite=overwrite)
    codes = tmp_path / "a.safetensors"
    encode_file(wav, tiny_codec, codes)
    before = codes.read_bytes()
    with pytest.raises(FileExistsError, match=r"a\.safetensors already exists"):
        encode_file(wav, tiny_codec, codes, n_codebooks=1)
    with pytest.raises(FileExistsError, match=r"a\.wav already exists"):
        decode_file(codes, wav, tiny_codec)
    (tmp_path / "soft.wav").symlink_to(codes)
    with pytest.raises(ValueError, match="is an input file"):
        decode_file(codes, tmp_path / "soft.wav", tiny_codec, overwrite=True)
    assert (wav.read_bytes(), codes.read_bytes()) == (audio, before)
    encode_file(wav, tiny_codec, codes, n_codebooks=1, overwrite=True)
    assert read_codes(codes).codes.shape[0] == 1
    decode_file(codes, wav, tiny_codec, overwrite=True)
    assert wav.read_bytes() != audio


def test_outputs_are_checked_before_the_codec_is_loaded(wav: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"b\.wav must end in \.safetensors"):
        encode_file(wav, "no codec", tmp_path / "b.wav")
    with pytest.raises(ValueError, match="no such file"):
        encode_file(tmp_path / "none.wav", "no codec")
    with pytest.raises(ValueError, match=r"b\.txt must end in \.wav, "):
        decode_file(tmp_path / "none.safetensors", tmp_path / "b.txt")


def test_bytes_and_open_files_are_encoded(wav: Path, tiny_codec: StftCodec) -> None:
    expected = encode_file(wav, tiny_codec).codes
    assert torch.equal(encode_file(wav.read_bytes(), tiny_codec).codes, expected)
    with wav.open("rb") as file:
        assert torch.equal(encode_file(file, tiny_codec).codes, expected)
    with pytest.raises(ValueError, match="cannot read my clip: empty"):
        encode_file(b"", tiny_codec, name="my clip")


def test_a_failed_write_leaves_no_file(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    codes = tmp_path / "a.safetensors"
    encode_file(wav, tiny_codec, codes)
    before = codes.read_bytes()
    monkeypatch.setattr(os, "fsync", refuse)
    for name in ("a.safetensors", "new.safetensors"):
        with pytest.raises(OSError, match=f"{name}: no space is left on the disk"):
            encode_file(wav, tiny_codec, tmp_path / name, n_codebooks=1, overwrite=True)
    assert codes.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "a.safetensors"}


def test_stable_float_files_give_their_codes_again(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    """With the audio rounded to 16 bits, and without."""
    first = encode_file(wav, tiny_codec, tmp_path / "a.safetensors")
    for i, robust_to in enumerate([("int16",), ()]):
        audio, _ = tiny_codec.decode(
            first.codes[None], first.n_samples, stable=StableDecoding(robust_to=robust_to)
        )
        write_audio(tmp_path / f"{i}.wav", audio[0], 16000, subtype="FLOAT")
        encode_file(tmp_path / f"{i}.wav", tiny_codec, tmp_path / f"{i}.safetensors")
        assert torch.equal(read_codes(tmp_path / f"{i}.safetensors").codes, first.codes)


def test_results_say_what_stable_decoding_reached(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    encoded = encode_file(wav, tiny_codec)
    settings = StableDecoding(steps=1, repairs=0, robust_to=("gain:0.1",))
    found = decode_file(encoded, tmp_path / "b.wav", tiny_codec, stable=settings)
    again = encode_file(tmp_path / "b.wav", tiny_codec).codes
    assert found.kept == (again == encoded.codes).double().mean().item()
    assert list(found.survived) == ["gain:0.1", "int16"]
    assert found.to_frame()["kept_int16"].tolist() == [found.kept]
    plain = decode_file(encoded, tmp_path / "c.wav", tiny_codec)
    assert plain.kept is None and "kept" not in plain.to_dict()


def test_stable_files_of_codes_on_a_grid(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    encoded = encode_file(wav, tiny_codec, tmp_path / "a.safetensors", grid=100)
    found = decode_file(tmp_path / "a.safetensors", tmp_path / "b.wav", tiny_codec, stable=True)
    assert found.n_samples == encoded.n_samples
    again = encode_file(tmp_path / "b.wav", tiny_codec, grid=100).codes
    assert found.kept == pytest.approx((again == encoded.codes).double().mean().item())
    assert torch.equal(again[:, 5:], encoded.codes[:, 5:])  # zeros come before the first frame


def test_formats_add_what_they_do() -> None:
    none = StableDecoding(robust_to=())
    found = {kind: settings_for(f".{kind}", none).robust_to for kind in ("wav", "flac", "MP3")}
    assert found == {"wav": ("int16",), "flac": ("int16",), "MP3": ("mp3:128",)}
    dither = StableDecoding(robust_to=("dither",))
    assert settings_for(".wav", dither) is dither
    assert settings_for(".opus", dither).robust_to == ("dither", "opus:64")
    with pytest.warns(UserWarning, match=r"m4a is no transport.*write \.wav"):
        assert settings_for(".m4a", dither) is dither


def test_stable_decoding_needs_a_gradient(tmp_path: Path) -> None:
    codec = MAKERS["mimi"]()
    codes = encode_file(tone_file(tmp_path, codec.spec.sample_rate), codec)
    with pytest.raises(ValueError, match="cannot decode stably"):
        decode_file(codes, tmp_path / "b.m4a", codec, stable=True)
    assert not (tmp_path / "b.m4a").exists()


def tone_file(folder: Path, rate: int) -> Path:
    write_audio(folder / "tone.wav", make_tone(0.5, 0, rate), rate)
    return folder / "tone.wav"
