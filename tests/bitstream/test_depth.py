"""Codecs of variable bitrate in .tgc files: whole, live, joined, in parts, and damaged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from makers.audio import codec_tone
from makers.codecs import make_stft_codec, make_variable, make_variable_dac, save_codec
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.compressed import CompressedReader, CompressedWriter, compress, decompress
from tokgen.bitstream.tgc.entropy import StaticCounts
from tokgen.bitstream.tgc.facts import describe_file
from tokgen.bitstream.tgc_batch import compress_files, decompress_files
from tokgen.bitstream.tgc_files import compress_file, decompress_file
from tokgen.codec.base import Codec
from tokgen.codec.depth import stream_bits
from tokgen.zoo.lookup import load_codec


@pytest.fixture(scope="module", params=["stft", "dac"])
def codec(request: pytest.FixtureRequest) -> Codec:
    """A codec of variable bitrate, with all levels."""
    return make_variable(None) if request.param == "stft" else make_variable_dac(None)


def kbps(codec: Codec, share: float) -> float:
    return share * codec.spec.bitrate / 1000


def audio(codec: Codec, seconds: float, seed: int = 0) -> Tensor:
    return codec_tone(codec, round(seconds * codec.spec.sample_rate), seed)


def expected(codec: Codec, waveform: Tensor, **more: float) -> Tensor:
    encoded = codec.encode_with_side(waveform, **more)
    return codec.decode(encoded.codes, waveform.shape[-1], encoded.side)


@pytest.mark.parametrize("entropy", ["auto", "adaptive", "static"])
@pytest.mark.parametrize("more", [{"level": 0.7}, {"share": 0.6}, {"level": 2.0, "n_codebooks": 2}])
def test_decompressing_gives_what_the_codec_decodes(
    codec: Codec, entropy: str, more: dict[str, float]
) -> None:
    if "share" in more:
        more = {"bitrate": kbps(codec, more["share"])}
    waveform = audio(codec, 2.3)
    model, size = None, codec.spec.codebook_size
    if entropy == "static":
        model = StaticCounts.fit([codec.encode(waveform)[0].numpy()], codec.spec.n_codebooks, size)
    data = compress(waveform, codec, entropy=model or entropy, block_seconds=0.5, **more)
    found = decompress(data, codec, model=model)
    wanted = codec.encode_with_side(waveform, **more)
    assert found.problems == []
    assert torch.equal(found.waveform, expected(codec, waveform, **more))
    blocks = list(CompressedReader(io.BytesIO(data), codec, model=model).blocks())
    assert len(blocks) > 3
    assert np.array_equal(np.concatenate([b.codes for b in blocks], 1), wanted.codes[0])
    depth = np.concatenate([b.side["depth"] for b in blocks])
    assert np.array_equal(depth, wanted.side["depth"][0])


def test_views_and_names_with_a_bitrate_choose_it(codec: Codec) -> None:
    waveform, rate = audio(codec, 2), {"bitrate": kbps(codec, 0.6)}
    data = compress(waveform, codec, **rate)
    view = codec.with_rate(**rate)
    assert compress(waveform, view) == data
    assert compress(waveform, codec.with_rate(level=3.0), **rate) == data  # the setting wins
    for reader in (codec, view, codec.with_rate(level=0.1)):
        assert torch.equal(decompress(data, reader).waveform, expected(view, waveform))
    plain = compress(waveform, codec)
    assert torch.equal(decompress(plain, view).waveform, codec.roundtrip(waveform))


def test_files_without_a_depth_have_version_1(codec: Codec) -> None:
    waveform = audio(codec, 1)
    assert compress(waveform, codec)[4] == compress(waveform, codec, n_codebooks=2)[4] == 1
    assert compress(waveform, codec, level=1.0)[4] == 2


def test_a_level_streams_and_a_bitrate_comes_at_the_end() -> None:
    codec = make_variable(None)
    waveform = audio(codec, 6)
    for more in ({"level": 0.7}, {"bitrate": kbps(codec, 0.6)}):
        file = io.BytesIO()
        with CompressedWriter(file, codec, block_seconds=0.2, step=5, **more) as writer:
            for block in waveform[0].split(1234, dim=-1):
                writer.push(block)
            so_far = len(file.getvalue())
        assert (so_far > 300) == ("level" in more)
        found = torch.cat(list(CompressedReader(io.BytesIO(file.getvalue()), codec)), dim=-1)
        assert torch.equal(found, expected(codec, waveform, **more))
    assert decompress(file.getvalue()[:-20], codec).waveform.shape == waveform.shape


def test_joined_streams_and_parts() -> None:
    codec = make_variable(None)
    rate, clips = codec.spec.sample_rate, [audio(codec, s, i) for i, s in enumerate((1.3, 0.9, 2))]
    settings = ({"level": 0.6}, {}, {"bitrate": kbps(codec, 0.5)})
    data = b"".join(
        compress(clip, codec, block_seconds=0.3, **more)
        for clip, more in zip(clips, settings, strict=True)
    )
    whole = torch.cat([expected(codec, c, **m) for c, m in zip(clips, settings, strict=True)], -1)
    for reader in (codec, codec.with_rate(level=0.3)):
        assert torch.equal(decompress(data, reader).waveform, whole)
        for start in (0.37, 1.29, 1.9, 3.33):
            found = decompress(data, reader, start=start, seconds=0.61).waveform
            first = round(start * rate)
            assert torch.equal(found, whole[..., first : round((start + 0.61) * rate)])
    part = list(CompressedReader(io.BytesIO(data), codec, start=0.37, seconds=0.2).blocks())
    depth = codec.encode_with_side(clips[0], level=0.6).side["depth"][0, 18:29]
    assert np.array_equal(np.concatenate([b.side["depth"] for b in part]), depth)


def test_a_lost_block_is_silent_and_the_rest_is_not() -> None:
    codec = make_variable(None)
    waveform = audio(codec, 3)
    data = bytearray(compress(waveform, codec, level=0.7, block_seconds=0.5))
    at = data.index(b"TGCB", data.index(b"TGCB") + 4)
    data[at + 30] ^= 255
    found, whole = decompress(bytes(data), codec), expected(codec, waveform, level=0.7)
    assert found.problems == ["frames 25..49 are lost: wrong checksum"]
    far = torch.arange(waveform.shape[-1])
    far = (far < 5 * 320) | (far > 70 * 320)
    assert torch.equal(found.waveform[..., far], whole[..., far])
    quiet = codec.roundtrip(torch.zeros(1, 1, 16_000))[..., 8_000:8_320]
    assert torch.allclose(found.waveform[..., 37 * 320 : 38 * 320], quiet, atol=1e-5)
    lost = next(b for b in CompressedReader(io.BytesIO(data), codec).blocks() if b.problem)
    assert (lost.codes == -1).all() and (lost.side["depth"] == 0).all()
    cut = decompress(bytes(data[:at]), codec)
    assert "its end is missing" in cut.problems and cut.waveform.shape == waveform.shape


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_blocks_are_as_large_as_the_bitrate_says(share: float, tmp_path: Path) -> None:
    codec = make_variable(None, codebook_size=1024, n_codebooks=8)
    waveform, view = audio(codec, 12), codec.with_rate(bitrate=kbps(codec, share))
    path = tmp_path / "a.tgc"
    path.write_bytes(compress(waveform, view))
    depth = view.encode_with_side(waveform).depth[0]
    bits = stream_bits(depth.numel(), 8, codec.spec, depth)
    assert bits == pytest.approx(1000 * kbps(codec, share) * 12, rel=0.02)
    stream = describe_file(path).streams[0]
    blocks = path.stat().st_size - path.read_bytes().index(b"TGCB") - 20 - 22 * stream.n_blocks
    assert 8 * blocks == pytest.approx(bits, rel=0.02)
    assert stream.mean_depth == pytest.approx(depth.float().mean().item())
    assert 8 * blocks - stream.depth_bits == pytest.approx(10 * depth.sum().item(), abs=16)


def test_info_tells_the_depth(tmp_path: Path) -> None:
    codec, path = make_variable(None), tmp_path / "a.tgc"
    path.write_bytes(compress(audio(codec, 2), codec, level=0.7, block_seconds=0.5))
    facts = describe_file(path)
    stream = facts.streams[0]
    assert 1 < stream.mean_depth < 4 and stream.depth_bits > 0
    line = f"depth        {stream.mean_depth:.2f} levels per frame, {stream.depth_bits // 8} bytes"
    assert line in str(facts)
    path.write_bytes(compress(audio(codec, 2), codec))
    facts = describe_file(path)
    assert "levels per frame" not in str(facts)
    assert facts.to_dict()["streams"][0]["mean_depth"] is None


def test_files_are_compressed_at_a_level_and_at_a_bitrate(tmp_path: Path) -> None:
    codec = make_variable(None)
    folder = save_codec(codec, tmp_path / "zoo" / "vbr")
    named = load_codec(folder)
    for i in range(2):
        write_audio(tmp_path / "in" / f"{i}.wav", audio(codec, 2, i)[0], 16_000)
    waveform = read_audio(tmp_path / "in" / "0.wav")[0][None]
    rate = kbps(codec, 0.6)
    for i, (name, more) in enumerate(
        ((folder, {"level": 0.7}), (folder, {"bitrate": rate}), (f"{folder}:{rate:.3f}", {}))
    ):
        made = compress_file(tmp_path / "in" / "0.wav", name, tmp_path / f"{i}.tgc", **more)
        assert made.mode == "packed"
        decompress_file(tmp_path / f"{i}.tgc", tmp_path / f"{i}.wav", folder)
        wanted = expected(named, waveform, **(more or {"bitrate": round(rate, 3)}))[0].clamp(-1, 1)
        assert torch.allclose(read_audio(tmp_path / f"{i}.wav")[0], wanted, atol=1 / 32_000)
    for jobs in (1, 2):
        out = tmp_path / f"out{jobs}"
        done = compress_files([tmp_path / "in"], folder, out, bitrate=rate, jobs=jobs)
        assert [r.mode for r in done.results] == ["packed"] * 2 and not done.failures
        assert (out / "0.tgc").read_bytes() == (tmp_path / "1.tgc").read_bytes()
    assert decompress_files([tmp_path / "out1"], tmp_path / "audio", folder).exit_code == 0


def test_what_does_not_go_with_a_depth_is_refused(codec: Codec) -> None:
    waveform = audio(codec, 0.5)
    plain = make_stft_codec()
    for call, message in (
        (lambda: compress(waveform, codec, level=1, bitrate=1), "bitrate = 1 and level = 1: give"),
        (lambda: compress(waveform, codec, n_codebooks=2, bitrate=1), "n_codebooks = 2: give one"),
        (lambda: compress(waveform, codec, bitrate=1e4), "bitrate = 10000 kbps: .* reaches"),
        (lambda: compress(audio(plain, 1), plain, level=1.0), "tiny has no variable bitrate"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    other = make_stft_codec(name="other")
    other.spec = codec.spec
    with pytest.raises(ValueError, match=r"variable depth, but .* has no variable bitrate: use"):
        decompress(compress(waveform, codec, level=1.0), other)
