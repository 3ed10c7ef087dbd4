"""Tests of compressing and decompressing files, and of what .tgc files tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import MAKERS, make_stft_codec
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.compressed import compress
from tokgen.bitstream.tgc.facts import describe_file
from tokgen.bitstream.tgc_files import compress_file, decompress_file
from tokgen.zoo.stft import StftCodec


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    write_audio(tmp_path / "a.wav", make_tone(2.0, 0), 16_000)
    return tmp_path / "a.wav"


def test_files_come_back(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    made = compress_file(wav, tiny_codec, tmp_path / "a.tgc", entropy="packed", block_seconds=1)
    size = (tmp_path / "a.tgc").stat().st_size
    assert (made.n_bytes, made.n_samples, made.mode) == (size, 32_000, "packed")
    assert str(made) == f"{tmp_path / 'a.tgc'}: 2.00 s, {size} bytes, {size / 250:.2f} kbps, packed"
    assert made.to_dict()["kbps"] == pytest.approx(size * 8 / 2000)
    found = decompress_file(tmp_path / "a.tgc", tmp_path / "b.flac", tiny_codec)
    assert (found.n_samples, found.problems, found.exit_code) == (32_000, [], 0)
    expected = tiny_codec.roundtrip(read_audio(wav)[0][None])[0]
    decoded, rate = read_audio(tmp_path / "b.flac")
    assert rate == 16_000 and torch.allclose(decoded, expected.clamp(-1, 1), atol=1 / 32_000)
    assert str(found) == f"{tmp_path / 'b.flac'}: 2.00 s"


def test_a_beam_and_a_bitrate_change_the_codes(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    for i, more in enumerate(({}, {"beam": 4}, {"bitrate": 0.6})):
        compress_file(wav, tiny_codec, tmp_path / f"{i}.tgc", entropy="packed", **more)
    greedy, searched, half = ((tmp_path / f"{i}.tgc").read_bytes() for i in range(3))
    assert greedy != searched and len(greedy) == len(searched) > 1.5 * len(half)
    assert describe_file(tmp_path / "2.tgc").streams[0].n_codebooks == 2


def test_stable_audio_is_compressed_to_the_same_codes(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    first, second, plain = (tmp_path / name for name in ("a.tgc", "b.tgc", "c.tgc"))
    compress_file(wav, tiny_codec, first, block_seconds=0.5)
    found = decompress_file(first, tmp_path / "b.wav", tiny_codec, stable=True)
    assert found.kept == 1 and found.steps > 0 and found.n_samples == 32_000
    compress_file(tmp_path / "b.wav", tiny_codec, second, block_seconds=0.5)
    assert second.read_bytes() == first.read_bytes()
    decompress_file(first, tmp_path / "c.wav", tiny_codec)
    compress_file(tmp_path / "c.wav", tiny_codec, plain, block_seconds=0.5)
    assert plain.read_bytes() != first.read_bytes()


def test_stable_decoding_takes_whole_files(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    path, out = tmp_path / "a.tgc", tmp_path / "b.wav"
    compress_file(wav, tiny_codec, path, block_seconds=0.5)
    data = path.read_bytes()
    place = data.index(b"TGCB") + 30
    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    with pytest.raises(ValueError, match="takes whole files; leave out both"):
        decompress_file(path, out, tiny_codec, start=1, stable=True)
    for content, message in (
        (data + data, "2 streams in one file; decompress it without stable"),
        (data[:-8], "end is missing; decompress it without stable"),
        (damaged, "wrong checksum; decompress it without stable"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            decompress_file(path, out, tiny_codec, stable=True)
    mimi = MAKERS["mimi"]()
    path.write_bytes(compress(0.1 * torch.rand(1, 1, 24_000), mimi))
    with pytest.raises(ValueError, match="cannot decode stably"):
        decompress_file(path, out, mimi, stable=True)
    assert not out.exists()


def test_damage_is_reported(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    path = tmp_path / "a.tgc"
    compress_file(wav, tiny_codec, path, block_seconds=0.5)
    data = bytearray(path.read_bytes())
    data[data.index(b"TGCB") + 30] ^= 1
    path.write_bytes(data)
    found = decompress_file(path, tmp_path / "b.wav", tiny_codec)
    assert found.problems == ["frames 0..24 are lost: wrong checksum"] and found.exit_code == 1
    assert "damaged: frames 0..24 are lost" in str(found)
    facts = describe_file(path)
    assert (facts.streams[0].n_damaged, facts.streams[0].n_blocks, facts.exit_code) == (1, 4, 1)


def test_files_tell_what_they_are(wav: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    path = tmp_path / "a.tgc"
    made = compress_file(wav, tiny_codec, path)
    facts = describe_file(path)
    stream = facts.streams[0]
    assert (facts.n_bytes, stream.codec, stream.mode) == (made.n_bytes, "tiny", "adaptive")
    assert stream.weight_hash == tiny_codec.spec.weight_hash[:16] and stream.complete
    assert (stream.n_samples, stream.n_frames, stream.n_blocks) == (32_000, 100, 1)
    assert "4 levels of 60 x 100 frames" in str(facts) and facts.exit_code == 0
    assert facts.to_frame()["n_samples"].tolist() == [32_000]
    path.write_bytes(path.read_bytes()[:-1] + path.read_bytes())
    facts = describe_file(path)
    assert [s.complete for s in facts.streams] == [False, True] and facts.exit_code == 1
    assert "the file was cut off" in str(facts)


def test_wrong_files_are_refused_and_nothing_is_written(
    wav: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"a\.wav must end in \.tgc|is an input file"):
        compress_file(wav, tiny_codec, wav)
    with pytest.raises(ValueError, match=r"b\.txt must end in \.tgc"):
        compress_file(wav, tiny_codec, tmp_path / "b.txt")
    with pytest.raises(ValueError, match="no such file"):
        compress_file(tmp_path / "none.wav", tiny_codec, tmp_path / "b.tgc")
    for read in (describe_file, lambda p: decompress_file(p, tmp_path / "b.wav", tiny_codec)):
        with pytest.raises(ValueError, match=r"a\.wav: it is not a \.tgc file: make one with"):
            read(wav)
        with pytest.raises(FileNotFoundError, match="no such file"):
            read(tmp_path / "none.tgc")
    other = make_stft_codec(seed=5, name="other")
    (tmp_path / "c.tgc").write_bytes(compress(torch.rand(1, 1, 900), other))
    with pytest.raises(ValueError, match=r"c\.tgc: made by codec 'other'"):
        decompress_file(tmp_path / "c.tgc", tmp_path / "b.wav", tiny_codec)
    assert not (tmp_path / "b.wav").exists() and not (tmp_path / "b.tgc").exists()
