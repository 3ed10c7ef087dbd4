"""Time ranges of .tgc files are equal to those parts of the whole."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import MAKERS, make_stft_codec
from tokgen.bitstream.compressed import CompressedReader, CompressedWriter, compress, decompress
from tokgen.bitstream.tgc_files import decompress_file
from tokgen.codec.base import Codec
from tokgen.zoo.stft import StftCodec

RANGES = [(0.37, 0.5), (1.5, 0.001), (2.299, 9.0)]


def tone(seconds: float, codec: Codec, seed: int = 0) -> Tensor:
    """[1, C, N]"""
    rate, channels = codec.spec.sample_rate, codec.spec.channels
    items = [make_tone(seconds, seed + c, rate).reshape(-1) for c in range(channels)]
    return torch.stack(items)[None]


def read(data: bytes, codec: Codec, start: float = 0, **more: float | None) -> CompressedReader:
    return CompressedReader(io.BytesIO(data), codec, start=start, **more)


def codes_in(reader: CompressedReader) -> Tensor:
    return torch.from_numpy(np.concatenate([b.codes for b in reader.blocks()], axis=1))


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_range_is_the_part_of_the_whole(kind: str) -> None:
    codec = MAKERS[kind]()
    data, rate = compress(tone(2.3, codec), codec, block_seconds=0.3), codec.spec.sample_rate
    whole = decompress(data, codec).waveform
    for start, seconds in RANGES:
        last = None if seconds is None else round((start + seconds) * rate)
        found = decompress(data, codec, start=start, seconds=seconds).waveform
        assert torch.equal(found, whole[..., round(start * rate) : last]), (start, seconds)


def test_only_the_blocks_around_a_range_are_decoded(tmp_path: Path) -> None:
    codec = make_stft_codec()
    codec.window_frames = 50
    assert codec.decoder_reach.after < 50
    waveform = tone(20.0, codec)
    data = bytearray(compress(waveform, codec, block_seconds=1))
    whole = decompress(bytes(data), codec).waveform
    blocks = [found.start() for found in re.finditer(b"TGCB", data)]
    for second in (*range(8), *range(13, 20)):
        data[blocks[second] + 40] ^= 1
    (tmp_path / "a.tgc").write_bytes(data)
    reader = CompressedReader(tmp_path / "a.tgc", codec, start=10.2, seconds=1)
    for _ in range(2):
        found = torch.cat(list(reader), dim=-1)
        assert reader.problems == [] and reader.n_samples == 16_000
        assert torch.equal(found, whole[..., 163_200:179_200])
    assert torch.equal(codes_in(reader), codec.encode(waveform)[0, :, 510:560])


def test_ranges_cross_streams_that_were_joined(tiny_codec: StftCodec) -> None:
    parts = [tone(s, tiny_codec, i) for i, s in enumerate((1.01, 0.5, 2.3, 0.7))]
    joined = b"".join(compress(x, tiny_codec, block_seconds=0.2) for x in parts[:2])
    live = io.BytesIO()  # its header does not tell its length
    with CompressedWriter(live, tiny_codec, block_seconds=0.2) as writer:
        writer.push(parts[2])
    joined += live.getvalue() + compress(parts[3], tiny_codec)
    whole = decompress(joined, tiny_codec).waveform
    assert whole.shape[-1] == sum(x.shape[-1] for x in parts)
    for start in (0.0, 0.6, 1.01, 1.3, 1.5, 1.52, 3.7, 3.9, 4.5):
        for seconds in (0.05, 1.0, 3.0, None):
            last = None if seconds is None else round((start + seconds) * 16_000)
            found = decompress(joined, tiny_codec, start=start, seconds=seconds).waveform
            assert torch.equal(found, whole[..., round(start * 16_000) : last]), (start, seconds)
    every = [tiny_codec.encode(x)[0] for x in parts]
    assert torch.equal(codes_in(read(joined, tiny_codec)), torch.cat(every, 1))
    wanted = [every[0][:, 49:], every[1], every[2][:, :4]]
    assert torch.equal(codes_in(read(joined, tiny_codec, 0.99, seconds=0.6)), torch.cat(wanted, 1))


def test_a_range_of_a_file_that_was_cut_off(tiny_codec: StftCodec) -> None:
    waveform = tone(2.0, tiny_codec)
    data = compress(waveform, tiny_codec, block_seconds=0.2)
    data = data[: data.rindex(b"TGCB")] + compress(waveform, tiny_codec)
    whole = decompress(data, tiny_codec).waveform
    assert whole.shape[-1] == 64_000
    for start in (0.5, 1.7, 1.95, 2.0, 3.0):
        found = decompress(data, tiny_codec, start=start)
        assert torch.equal(found.waveform, whole[..., round(start * 16_000) :])
    assert "frames 90..99 are lost: cut off" in decompress(data, tiny_codec, start=1.7).problems


def test_ranges_of_damaged_files_are_those_parts_too(tiny_codec: StftCodec) -> None:
    rng = np.random.default_rng(0)
    good = compress(tone(1.2, tiny_codec), tiny_codec, block_seconds=0.1, entropy="packed")
    n_damaged = 0
    for _ in range(60):
        data = bytearray(good + good)
        for at in rng.integers(4, len(data) - 150, rng.integers(1, 4)):
            del data[at : at + rng.integers(0, 40)]
            data[at] ^= 1 << rng.integers(8)
        start = round(float(rng.uniform(0, 1)), 3)
        try:
            whole = decompress(bytes(data), tiny_codec)
        except ValueError:
            with pytest.raises(ValueError, match="the stream: it"):
                decompress(bytes(data), tiny_codec, start=start)
            continue
        found = decompress(bytes(data), tiny_codec, start=start, seconds=0.1).waveform
        first = round(start * 16_000)
        last = round((start + 0.1) * 16_000)
        assert torch.equal(found, whole.waveform[..., first:last])
        n_damaged += bool(whole.problems)
    assert n_damaged > 40


def test_codes_that_are_missing_are_marked(tiny_codec: StftCodec) -> None:
    data = bytearray(compress(tone(2.0, tiny_codec), tiny_codec, block_seconds=0.5))
    data[data.index(b"TGCB") + 30] ^= 1
    reader = read(data, tiny_codec, 0.4, seconds=0.2)
    lost, good = reader.blocks()
    assert (lost.first_frame, good.first_frame) == (20, 25) and (lost.codes == -1).all()
    assert lost.codes.shape == good.codes.shape == (4, 5)
    assert reader.problems == ["frames 20..24 are lost: wrong checksum"]


@pytest.mark.parametrize(
    ("start", "seconds", "message"),
    [
        (2.0, None, r"a\.tgc: start is 2 s, but the audio has 2\.00 s"),
        (-1.0, None, "start is -1 s, but must be at least 0"),
        (0.0, 0.0, "seconds is 0, but must be above 0"),
    ],
)
def test_ranges_outside_the_audio_are_refused(
    start: float, seconds: float | None, message: str, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    file, out, part = tmp_path / "a.tgc", tmp_path / "b.wav", {"start": start, "seconds": seconds}
    file.write_bytes(compress(tone(2.0, tiny_codec), tiny_codec))
    with pytest.raises(ValueError, match=message):
        decompress_file(file, out, tiny_codec, **part)
    with pytest.raises(ValueError, match=message):
        list(CompressedReader(file, tiny_codec, **part).blocks())
    assert not out.exists()
    assert decompress_file(file, out, tiny_codec, start=1.5).n_samples == 8000
