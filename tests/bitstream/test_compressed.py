"""Tests of compressed audio: exactness, streaming, damage, and other codecs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import MAKERS, make_encodec, make_stft_codec
from tokgen.bitstream.compressed import (
    CompressedReader,
    CompressedWriter,
    compress,
    decompress,
)
from tokgen.bitstream.settings import levels_for
from tokgen.bitstream.tgc.container import Block, read_events
from tokgen.bitstream.tgc.entropy import AdaptiveCounts, StaticCounts
from tokgen.codec.base import Codec
from tokgen.zoo.stft import StftCodec


def tone(seconds: float, rate: int = 16_000, channels: int = 1) -> Tensor:
    """[1, C, N]"""
    items = [make_tone(seconds, seed, rate) for seed in range(channels)]
    return torch.stack([torch.as_tensor(x).reshape(-1) for x in items])[None]


def codes_in(data: bytes, codec: Codec) -> Tensor:
    model = AdaptiveCounts(codec.spec.n_codebooks, codec.spec.codebook_size)

    def find(header: object) -> AdaptiveCounts | None:
        return None if header.mode == "packed" else model

    blocks = [e.codes for e in read_events(io.BytesIO(data), find) if isinstance(e, Block)]
    return torch.from_numpy(np.concatenate(blocks, axis=1))[None]


@pytest.mark.parametrize("n", [1, 319, 320, 321, 40_000])
@pytest.mark.parametrize("entropy", ["packed", "adaptive"])
def test_decompressing_gives_what_the_codec_decodes(
    tiny_codec: StftCodec, n: int, entropy: str
) -> None:
    waveform = tone(3.0)[..., :n]
    data = compress(waveform, tiny_codec, entropy=entropy, block_seconds=0.5)
    found = decompress(data, tiny_codec)
    assert torch.equal(found.waveform, tiny_codec.roundtrip(waveform))
    assert found.sample_rate == 16_000 and found.problems == []
    assert torch.equal(codes_in(data, tiny_codec), tiny_codec.encode(waveform))


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_every_codec_is_compressed(kind: str) -> None:
    codec = MAKERS[kind]()
    channels = codec.spec.channels
    waveform = tone(2.3, codec.spec.sample_rate, channels)
    data = compress(waveform, codec, block_seconds=0.7)
    found = decompress(data, codec)
    assert found.problems == [] and found.waveform.shape == waveform.shape
    expected = codec.roundtrip(waveform)
    assert torch.allclose(found.waveform, expected, atol=1e-5), (
        (found.waveform - expected).abs().max()
    )
    mono = compress(waveform.mean(1, keepdim=True), codec, n_codebooks=1)
    assert decompress(mono, codec).waveform.shape == (1, 1, waveform.shape[-1])


def test_streams_equal_whole_files(tiny_codec: StftCodec, tmp_path: Path) -> None:
    waveform, sizes = tone(30.0), [1, 0, 700, 400_000, 5]
    file = io.BytesIO()
    with (
        CompressedWriter(file, tiny_codec, block_seconds=0.5) as writer,
        CompressedWriter(tmp_path / "a.tgc", tiny_codec, block_seconds=0.5) as to_path,
    ):
        for block in waveform.split([*sizes, waveform.shape[-1] - sum(sizes)], dim=-1):
            writer.push(block)
            to_path.push(block)
        so_far = len(file.getvalue())
        assert not (tmp_path / "a.tgc").exists()
    data = file.getvalue()
    assert 300 < so_far < len(data) == writer.n_bytes
    assert (tmp_path / "a.tgc").read_bytes() == data
    assert torch.equal(codes_in(data, tiny_codec), tiny_codec.encode(waveform))
    reader = CompressedReader(tmp_path / "a.tgc", tiny_codec)
    pieces = list(reader)
    assert len(pieces) > 1 and reader.n_samples == waveform.shape[-1]
    assert torch.equal(torch.cat(pieces, dim=-1), tiny_codec.roundtrip(waveform))


def test_live_audio_comes_soon(tiny_codec: StftCodec) -> None:
    waveform, file = tone(2.0), io.BytesIO()
    with CompressedWriter(file, tiny_codec, block_seconds=0.1, step=1) as writer:
        writer.push(waveform[..., :16_000])
        heard = list(CompressedReader(io.BytesIO(file.getvalue()), tiny_codec, step=1))
        assert sum(audio.shape[-1] for audio in heard) > 12_000
        writer.push(waveform[..., 16_000:])
    data = file.getvalue()
    assert torch.equal(codes_in(data, tiny_codec), tiny_codec.encode(waveform))
    pieces = list(CompressedReader(io.BytesIO(data), tiny_codec, step=1))
    assert len(pieces) > 15
    found = torch.cat(pieces, dim=-1)
    assert torch.allclose(found, tiny_codec.roundtrip(waveform), atol=1e-5)


class Trickle(io.RawIOBase):
    """A pipe that gives few bytes at a time, and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 7))


def test_pipes_are_read(tiny_codec: StftCodec) -> None:
    waveform = tone(1.0)
    data = compress(waveform, tiny_codec)
    assert torch.equal(
        decompress(Trickle(data), tiny_codec).waveform, tiny_codec.roundtrip(waveform)
    )


def test_audio_of_a_damaged_block_is_silent_and_the_rest_is_not(tiny_codec: StftCodec) -> None:
    waveform = tone(3.0)
    data = bytearray(compress(waveform, tiny_codec, block_seconds=0.5))
    second = data.index(b"TGCB", data.index(b"TGCB") + 4)
    data[second + 30] ^= 255
    found = decompress(bytes(data), tiny_codec)
    assert found.problems == ["frames 25..49 are lost: wrong checksum"]
    expected = tiny_codec.roundtrip(waveform)
    far = torch.arange(waveform.shape[-1])
    far = (far < 5 * 320) | (far > 70 * 320)
    assert found.waveform.shape == expected.shape
    assert torch.equal(found.waveform[..., far], expected[..., far])
    quiet = tiny_codec.roundtrip(torch.zeros(1, 1, 16_000))[..., 8_000:8_320]
    assert torch.allclose(found.waveform[..., 37 * 320 : 38 * 320], quiet, atol=1e-5)


def test_cut_files_keep_their_length_if_the_header_tells_it(tiny_codec: StftCodec) -> None:
    for codec in (tiny_codec, make_encodec("encodec-24k", normalize=True)):
        waveform = tone(2.0, codec.spec.sample_rate)
        data = compress(waveform, codec, block_seconds=0.5)
        found = decompress(data[: int(0.7 * len(data))], codec)
        assert "its end is missing" in found.problems
        assert found.waveform.shape == waveform.shape
    file = io.BytesIO()
    with CompressedWriter(file, tiny_codec, block_seconds=0.5) as writer:
        writer.push(tone(2.0))
    data = file.getvalue()
    found = decompress(data[: data.rindex(b"TGCB")], tiny_codec)
    assert "its end is missing" in found.problems and found.waveform.shape[-1] == 1.5 * 16_000


def test_chunks_keep_their_scales_when_a_block_is_lost() -> None:
    codec = make_encodec("encodec-48k")
    waveform = tone(4.0, codec.spec.sample_rate, codec.spec.channels)
    data = bytearray(compress(waveform, codec, block_seconds=1.0))
    at = data.index(b"TGCB", data.index(b"TGCB") + 4)
    data[at + 25] ^= 1
    found = decompress(bytes(data), codec)
    assert len(found.problems) == 1 and found.waveform.shape == waveform.shape
    n = codec.spec.chunk_stride - codec.spec.chunk_length // 100
    assert torch.allclose(found.waveform[..., :n], codec.roundtrip(waveform)[..., :n], atol=1e-5)


def test_concatenated_files_follow_one_another(tiny_codec: StftCodec) -> None:
    one, two = tone(0.5), tone(0.7)
    data = compress(one, tiny_codec) + compress(two, tiny_codec, n_codebooks=2)
    expected = [tiny_codec.roundtrip(one), tiny_codec.roundtrip(two, 2)]
    assert torch.equal(decompress(data, tiny_codec).waveform, torch.cat(expected, dim=-1))
    other = compress(one, make_stft_codec(seed=3, name="other"))
    with pytest.raises(ValueError, match=r"made by codec 'other' .* not by 'tiny'"):
        decompress(data + other, tiny_codec)


def test_files_of_another_codec_are_refused_by_name_and_hash(tiny_codec: StftCodec) -> None:
    data = compress(tone(0.5), tiny_codec)
    other = make_stft_codec(seed=3, name="other")
    with pytest.raises(ValueError, match=r"the stream: made by codec 'tiny' .* not by 'other'"):
        decompress(data, other)
    with pytest.raises(ValueError, match="'tiny', which is not in the zoo: name its folder"):
        decompress(data)


def test_models_are_named_by_their_hash(tiny_codec: StftCodec) -> None:
    waveform = tone(1.0)
    table = StaticCounts.fit([tiny_codec.encode(waveform)[0].numpy()], 4, 60)
    data = compress(waveform, tiny_codec, entropy=table)
    assert len(data) < len(compress(waveform, tiny_codec, entropy="packed"))
    found = decompress(data, tiny_codec, model=table)
    assert torch.equal(found.waveform, tiny_codec.roundtrip(waveform))
    for wrong in (None, StaticCounts(table.table + 1)):
        with pytest.raises(ValueError, match=f"{table.model_hash[:16]}.*is not beside the codec"):
            decompress(data, tiny_codec, model=wrong)
    with pytest.raises(ValueError, match=r"entropy = static: tiny has no such model"):
        compress(waveform, tiny_codec, entropy="static")
    with pytest.raises(ValueError, match=r"entropy = pact \(did you mean packed\?\)"):
        compress(waveform, tiny_codec, entropy="pact")


def test_tables_beside_a_codec_are_found(tiny_codec_folder: Path, tmp_path: Path) -> None:
    import shutil

    from tokgen.zoo.lookup import load_codec

    shutil.copytree(tiny_codec_folder, tmp_path / "tiny")
    (tmp_path / "tiny" / "entropy").mkdir()
    codec = load_codec(tmp_path / "tiny")
    waveform = tone(1.0)
    table = StaticCounts.fit([codec.encode(waveform)[0].numpy()], 4, 60)
    table.save(tmp_path / "tiny" / "entropy" / "static.safetensors")
    data = compress(waveform, codec)
    assert CompressedWriter(io.BytesIO(), codec).mode == "static"
    assert torch.equal(decompress(data, codec).waveform, codec.roundtrip(waveform))


def test_bitrates_choose_levels(tiny_codec: StftCodec) -> None:
    kbps = tiny_codec.spec.bitrate / 1000
    assert [levels_for(kbps * x, tiny_codec.spec) for x in (0.25, 0.5, 0.74, 1, 9)] == [
        1,
        2,
        2,
        4,
        4,
    ]
    data = compress(tone(1.0), tiny_codec, bitrate=kbps / 2)
    assert codes_in(data, tiny_codec).shape[1] == 2
    with pytest.raises(ValueError, match=r"bitrate = 0\.1 kbps: tiny takes .* of 4 levels"):
        levels_for(0.1, tiny_codec.spec)
    with pytest.raises(ValueError, match="give one"):
        compress(tone(1.0), tiny_codec, bitrate=1, n_codebooks=1)


def test_wrong_settings_and_no_audio_are_refused(tiny_codec: StftCodec, tmp_path: Path) -> None:
    for seconds in (0, 1e6):
        with pytest.raises(ValueError, match=r"block_seconds = .*must be above 0, and at most 327"):
            compress(tone(1.0), tiny_codec, block_seconds=seconds)
    with pytest.raises(ValueError, match="channels = 2: tiny has 1"):
        CompressedWriter(io.BytesIO(), tiny_codec, channels=2)
    writer = CompressedWriter(tmp_path / "a.tgc", tiny_codec)
    with pytest.raises(ValueError, match="nothing to encode"):
        writer.close()
    with pytest.raises(ValueError, match="the writer is closed"):
        writer.push(tone(1.0))
    with pytest.raises(FileNotFoundError, match=r"no such file: .*a\.tgc"):
        CompressedReader(tmp_path / "a.tgc")
    with pytest.raises(ValueError, match=r"the stream: it is not a \.tgc file"):
        decompress(b"something", tiny_codec)


def test_a_failed_writer_leaves_no_file(tiny_codec: StftCodec, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="microphone"),
        CompressedWriter(tmp_path / "a.tgc", tiny_codec) as writer,
    ):
        writer.push(tone(1.0))
        raise RuntimeError("microphone")
    assert list(tmp_path.iterdir()) == []
