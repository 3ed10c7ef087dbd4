"""Tests of streams whose frames have a depth: round trip, the documented bytes, and damage."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitstream.tgc.test_container import LEVELS, MODELS, SIZE, codes_of, header_of, mend, read
from bitstream.tgc.test_entropy import draw
from bitstream.tgc.test_range_coder import decode_in_integers
from tokgen.bitstream.tgc.block_codes import decode_block, decode_depth, encode_block, encode_depth
from tokgen.bitstream.tgc.checksum import crc32c
from tokgen.bitstream.tgc.container import Block, Ended, TgcWriter
from tokgen.bitstream.tgc.entropy import AdaptiveCounts
from tokgen.bitstream.tgc.layout import pack_header, parse_header
from tokgen.bitstream.tgc.range_coder import DamagedStream
from tokgen.codec.depth import depth_bits


def draw_depth(n: int, levels: int = LEVELS, seed: int = 0) -> NDArray[np.int64]:
    steps = np.random.default_rng(seed).integers(-1, 2, n)
    return np.clip(np.cumsum(steps) + 2, 1, levels)


def live(codes: NDArray[np.int64], depth: NDArray[np.int64]) -> NDArray[np.int64]:
    return codes * (np.arange(len(codes))[:, None] < depth)


def write(n: int, mode: str, *, seed: int = 0, **periods: int) -> bytes:
    """Write a stream of blocks of 10 frames, whose codes are not 0 past the depth."""
    periods |= {"depth": 1}
    file, header = io.BytesIO(), header_of(mode, side_periods=periods)
    writer = TgcWriter(file, header, MODELS[mode])
    side = {name: np.arange(-(-n // p)).astype(np.float32) for name, p in periods.items()}
    side["depth"] = draw_depth(n, seed=seed).astype(np.float32)
    writer.write(draw(LEVELS, SIZE, n, seed), side)
    writer.close(9000)
    return file.getvalue()


@pytest.mark.parametrize("mode", MODELS)
@pytest.mark.parametrize("n", [1, 10, 11, 34])
def test_codes_and_depth_come_back(mode: str, n: int) -> None:
    events = read(write(n, mode, scales=5))
    blocks = [e for e in events if isinstance(e, Block)]
    assert events[-1] == Ended(n, 9000) and len(blocks) == -(-n // 10)
    depth = np.concatenate([b.side["depth"] for b in blocks])
    assert (depth == draw_depth(n)).all() and depth.dtype == np.float32
    assert (codes_of(events) == live(draw(LEVELS, SIZE, n), draw_depth(n))).all()
    assert np.concatenate([b.side["scales"] for b in blocks]).tolist() == list(range(-(-n // 5)))


def test_only_live_codes_take_bits() -> None:
    depth, codes = draw_depth(300), draw(LEVELS, SIZE, 300)
    assert len(encode_block(codes, SIZE, None, depth)) == -(-depth.sum() * 6 // 8)
    other = np.where(live(np.ones_like(codes), depth), codes, 7)
    for model in MODELS.values():
        data = encode_block(codes, SIZE, model, depth)
        assert encode_block(other, SIZE, model, depth) == data
        found = decode_block(data, LEVELS, 300, SIZE, model, depth)
        assert (found == live(codes, depth)).all()
        full = np.full(300, LEVELS)
        assert encode_block(codes, SIZE, model, full) == encode_block(codes, SIZE, model)


def test_each_level_adapts_to_the_frames_that_have_it() -> None:
    model = AdaptiveCounts(2, 4)
    state, alone = model.start(2), model.start(1)
    for frame in ([1, 3], [0], [1], [2, 3], [1], [2, 2]):
        state = model.update(state, np.array(frame))
        if len(frame) == 2:
            alone = model.update(alone, np.array(frame[1:]))
    none = np.array([], int)
    assert model.counts(state, 1, none).tolist() == model.counts(alone, 0, none).tolist()


def test_the_depth_takes_its_ideal_bits() -> None:
    depth = draw_depth(500, 8)
    data = encode_depth(depth, 8)
    ideal = depth_bits(torch.from_numpy(depth), 8)
    assert 0 < 8 * (len(data) - 2) - ideal < 64
    found, n_bytes = decode_depth(data + b"codes", 500, 8)
    assert (found == depth).all() and n_bytes == len(data)
    assert encode_depth(np.ones(9, int), 1) == b"\0\0"
    assert decode_depth(b"\0\0", 9, 1)[0].tolist() == [1] * 9


def depth_in_integers(data: bytes, n_frames: int, levels: int) -> list[int]:
    """Decode a depth as docs/tgc.md says, with Python's integers alone."""
    counts = [[max(8 >> min(abs(i - j), 4), 1) for j in range(levels)] for i in range(levels)]
    counts.append([1] * levels)
    row, rows, depth = levels, [], []
    for _ in range(n_frames):
        rows.append(list(counts[row]))
        found = decode_in_integers(data, np.array(rows))[-1]
        counts[row][found] += 4
        row = found
        depth.append(found + 1)
    return depth


def test_bytes_are_those_of_the_docs() -> None:
    data = write(23, "packed", scales=5)
    at = data.index(b"TGCB")
    header, names = data[: at - 4], b"\x02\x06scales\5\0\0\0\0\0\0\0\x05depth\1\0\0\0\0\0\0\0"
    assert header[:6] == b"\x89TGC\x02\x00" and header.endswith(names)
    assert data[at - 4 : at] == struct.pack("<I", crc32c(header))
    codes, depths = draw(LEVELS, SIZE, 23), []
    while data[at : at + 4] == b"TGCB":
        first, n, length, _ = struct.unpack_from("<IHII", data, at + 4)
        payload = data[at + 22 : at + 22 + length]
        payload = payload[4 * (-(-(first + n) // 5) - -(-first // 5)) :]  # without the scales
        end = 2 + int.from_bytes(payload[:2], "little")
        depth = depth_in_integers(payload[2:end], n, LEVELS)
        wanted = [int(c) for t, d in enumerate(depth) for c in codes[:d, first + t]]
        bits = "".join(f"{byte:08b}" for byte in payload[end:])
        assert [int(bits[6 * i : 6 * i + 6], 2) for i in range(len(wanted))] == wanted
        assert len(bits) == -(-6 * len(wanted) // 8) * 8
        depths += depth
        at += 22 + length
    assert depths == draw_depth(23).tolist()


@pytest.mark.parametrize("mode", MODELS)
def test_a_damaged_block_is_missing_and_the_rest_decodes(mode: str) -> None:
    data = bytearray(write(34, mode))
    second = data.index(b"TGCB", data.index(b"TGCB") + 4)
    data[second + 25] ^= 1
    events = read(bytes(data))
    found, wanted = codes_of(events), live(draw(LEVELS, SIZE, 34), draw_depth(34))
    wanted[:, 10:20] = -1
    assert (found == wanted).all() and events[-1] == Ended(34, 9000)
    depth = np.concatenate([e.side["depth"] for e in events if isinstance(e, Block)])
    assert (depth[10:20] == 0).all() and depth.min() == 0 and (depth[20:] > 0).all()


def test_a_wrong_length_of_the_depth_is_damage() -> None:
    data = bytearray(write(10, "packed"))
    data[data.index(b"TGCB") + 22 : data.index(b"TGCB") + 24] = b"\xff\xff"
    block = read(mend(bytes(data)))[1]
    assert isinstance(block, Block) and block.problem == "its depth is cut short"
    for wrong in (b"", b"\x03\x00abc"):
        with pytest.raises(DamagedStream, match=r"cut short|3 bytes: expected a multiple of 4"):
            decode_depth(wrong, 5, 3)


def test_wrong_depths_and_headers_are_refused() -> None:
    for depth in ([0, 1], [1, 4]):
        with pytest.raises(ValueError, match=r"depth spans .*: expected 1\.\.3"):
            encode_depth(np.array(depth), 3)
    periods = {"side_periods": {"depth": 1}}
    with pytest.raises(ValueError, match="'depth' must have a value for each frame"):
        header_of("packed", side_periods={"depth": 2})
    with pytest.raises(ValueError, match="'depth' must have a value for each frame"):
        header_of("packed", side={"depth": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"n_codebooks is 256, but .* must have at most 255"):
        header_of("packed", n_codebooks=256, **periods)
    with pytest.raises(ValueError, match=r"entropy = model needs all levels .* entropy = packed"):
        replace(header_of("adaptive", **periods), mode="model")


@pytest.mark.parametrize("depth", [True, False])
def test_versions_that_do_not_fit_are_refused(depth: bool) -> None:
    data = bytearray(pack_header(header_of(side_periods={"depth": 1} if depth else {}))[0])
    assert data[4] == 1 + depth
    data[4] = 2 - depth
    with pytest.raises(ValueError, match=f"version {2 - depth}, but streams with 'depth'"):
        parse_header(mend(bytes(data)))
