"""Tests of .tgc files: round trip, damage, concatenation, the documented bytes, and limits."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from bitstream.tgc.test_entropy import draw, models
from fuzz.damage import damage_bytes
from tokgen.bitstream.tgc.checksum import crc32c
from tokgen.bitstream.tgc.container import MAX_LOST_CODES, Block, Ended, TgcWriter, read_events
from tokgen.bitstream.tgc.entropy import MODES, AdaptiveCounts, EntropyModel
from tokgen.bitstream.tgc.layout import Header, end_bytes, pack_block, pack_header, short_hash

SIZE, LEVELS = 60, 3
MODELS: dict[str, EntropyModel | None] = dict(
    zip(("packed", "static", "adaptive"), models(LEVELS, SIZE), strict=True)
)


def header_of(mode: str = "adaptive", **more: object) -> Header:
    model = MODELS.get(mode)
    known = ("tiny", "ab" * 8, mode, "" if model is None else short_hash(model.model_hash))
    return replace(Header(*known, 16_000, 320, 1, LEVELS, SIZE, 10), **more)


def find_model(header: Header) -> EntropyModel | None:
    return MODELS.get(header.mode)


def write(
    codes: NDArray[np.int64], mode: str = "adaptive", length: int = 9000, **more: object
) -> bytes:
    file, header = io.BytesIO(), header_of(mode, **more)
    writer = TgcWriter(file, header, MODELS[mode])
    side = {n: np.arange(-(-codes.shape[1] // p)) for n, p in header.side_periods.items()}
    if "depth" in side:
        side["depth"] = side["depth"] // 3 % LEVELS + 1
    for part in np.array_split(codes, 5, axis=1):
        writer.write(part, side)
        side = {}
    writer.close(length)
    assert writer.n_bytes == len(file.getvalue())
    return file.getvalue()


def read(data: bytes, first_frame: int = 0) -> list[Header | Block | Ended]:
    return list(read_events(io.BytesIO(data), find_model, lambda _: first_frame))


def codes_of(events: list[Header | Block | Ended]) -> NDArray[np.int64]:
    return np.concatenate([e.codes for e in events if isinstance(e, Block)], axis=1)


@pytest.mark.parametrize("mode", MODELS)
@pytest.mark.parametrize("n", [1, 10, 11, 34])
def test_codes_come_back(mode: str, n: int) -> None:
    codes = draw(LEVELS, SIZE, n)
    events = read(write(codes, mode))
    assert events[0] == header_of(mode) and events[-1] == Ended(n, 9000)
    assert (codes_of(events) == codes).all() and len(events) == 2 + -(-n // 10)


def test_bytes_are_those_of_the_docs() -> None:
    codes = np.array([[5], [0], [59]])
    data = write(codes, "packed", 320, n_samples=320, side={"lead": np.ones(1, np.float32)})
    fixed = struct.pack("<4sBBHIQIBHIH", b"\x89TGC", 1, 0, 76, 16_000, 320, 320, 1, 3, 60, 10)
    fixed += b"\xab" * 8 + bytes(8) + b"\x04tiny\x01\x04lead" + struct.pack("<2If", 0, 1, 1.0)
    payload = bytes([0b00010100, 0b00001110, 0b11000000])
    block = struct.pack("<4sIHII", b"TGCB", 0, 1, 3, crc32c(payload))
    end = struct.pack("<4sIQ", b"TGCE", 1, 320)
    expected = fixed + struct.pack("<I", crc32c(fixed))
    expected += block + struct.pack("<I", crc32c(fixed + block)) + payload
    expected += end + struct.pack("<I", crc32c(fixed + end))
    assert data == expected


def test_checksums_are_crc_32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the CRC catalogue
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


@pytest.mark.parametrize("mode", MODELS)
def test_a_damaged_block_is_missing_and_the_rest_decodes(mode: str) -> None:
    codes = draw(LEVELS, SIZE, 34)
    data = bytearray(write(codes, mode))
    second = data.index(b"TGCB", data.index(b"TGCB") + 4)
    for at, why in ((second + 25, "wrong checksum"), (second + 5, "bytes are unreadable")):
        damaged = bytearray(data)
        damaged[at] ^= 1
        events = read(bytes(damaged))
        found, blocks = codes_of(events), [e for e in events if isinstance(e, Block)]
        assert (found[:, 10:20] == -1).all() and why in blocks[1].problem
        kept = np.r_[0:10, 20:34]
        assert (found[:, kept] == codes[:, kept]).all() and events[-1] == Ended(34, 9000)
        assert [bool(b.problem) for b in blocks] == [False, True, False, False]


def test_missing_repeated_and_swapped_blocks_are_noticed() -> None:
    codes = draw(LEVELS, SIZE, 40)
    data = write(codes)
    at = [i for i in range(len(data)) if data[i : i + 4] == b"TGCB"] + [data.index(b"TGCE")]
    parts = [data[: at[0]], *(data[a:b] for a, b in pairwise(at)), data[at[-1] :]]
    for order, gone in (
        ((0, 1, 3, 4, 5), (10, 20)),
        ((0, 1, 2, 2, 3, 4, 5), (0, 0)),
        ((0, 1, 3, 2, 4, 5), (10, 20)),
        ((0, 1, 2, 3, 5), (30, 40)),
    ):
        events = read(b"".join(parts[i] for i in order))
        expected = codes.copy()
        expected[:, slice(*gone)] = -1
        assert (codes_of(events) == expected).all() and events[-1] == Ended(40, 9000)


def test_a_cut_file_tells_what_it_has() -> None:
    codes = draw(LEVELS, SIZE, 34)
    data = write(codes, n_samples=9000)
    for n in (len(data) - 1, len(data) - 30, data.index(b"TGCB") + 30, data.index(b"TGCB")):
        events = read(data[:n])
        assert events[-1] == Ended(events[-1].n_frames, 9000, "its end is missing")
        blocks = [e for e in events if isinstance(e, Block)]
        assert all((b.codes == codes[:, b.first_frame :][:, :10]).all() for b in blocks[:-1])
    with pytest.raises(ValueError, match=r"wrong checksum|cut short"):
        read(data[:50])


def test_files_can_be_concatenated() -> None:
    codes = [draw(LEVELS, SIZE, n, n) for n in (12, 30)]
    one, two = write(codes[0], "packed"), write(codes[1], "static", 100)
    events = read(one + two)
    assert [e for e in events if isinstance(e, Header)] == [
        header_of("packed"),
        header_of("static"),
    ]
    assert [e for e in events if isinstance(e, Ended)] == [Ended(12, 9000), Ended(30, 100)]
    assert (codes_of(events) == np.concatenate(codes, axis=1)).all()
    events = read(one + b"junk" + two)
    assert Ended(12, 9000, "4 bytes after the end are unreadable") in events
    assert (codes_of(events) == np.concatenate(codes, axis=1)).all()
    events = read(one[:-5] + two)
    assert Ended(12, None, "its end is missing") in events
    damaged = bytearray(two)
    damaged[20] ^= 1
    events = read(one + bytes(damaged))  # blocks of a stream whose header is damaged
    assert (codes_of(events) == codes[0]).all() and "unreadable" in events[-1].problem


def test_reading_can_begin_at_a_frame() -> None:
    codes = draw(LEVELS, SIZE, 34)
    blocks = [e for e in read(write(codes), 25) if isinstance(e, Block)]
    assert [b.first_frame for b in blocks] == [20, 30]
    assert (blocks[0].codes == codes[:, 20:30]).all()


def test_side_information_comes_with_its_frames() -> None:
    data = write(draw(LEVELS, SIZE, 35), side_periods={"scales": 7}, block_frames=14)
    events = read(data)
    assert [len(e.side["scales"]) for e in events if isinstance(e, Block)] == [2, 2, 1]
    at = data.index(b"TGCB") + 30
    blocks = [e for e in read(data[:at] + b"x" + data[at + 1 :]) if isinstance(e, Block)]
    assert blocks[0].problem and blocks[0].side["scales"].tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"0 values of 'scales' for frames 0\.\.4: expected 1"):
        writer = TgcWriter(io.BytesIO(), header_of("packed", side_periods={"scales": 7}))
        writer.write(draw(LEVELS, SIZE, 5))
        writer.close(5)


def test_wrong_streams_are_refused() -> None:
    for data, why in ((b"", "it is empty"), (b"RIFF", "it is not a .tgc file")):
        with pytest.raises(ValueError, match=f"{why}: make one with `tokgen compress`"):
            read(data)
    later = bytearray(write(draw(LEVELS, SIZE, 3)))
    later[4] = 3
    with pytest.raises(ValueError, match="version 3, but this tokgen reads 1 and 2: update tokgen"):
        read(bytes(later))
    with pytest.raises(ValueError, match=r"made with the entropy model '\w{16}', not with ''"):
        list(read_events(io.BytesIO(write(draw(LEVELS, SIZE, 3))), lambda _: None))
    with pytest.raises(ValueError, match=r"codes of shape \(2, 4\): expected \[3, t\]"):
        TgcWriter(io.BytesIO(), header_of("packed")).write(np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="5 samples, but the header tells 9"):
        TgcWriter(io.BytesIO(), header_of("packed", n_samples=9)).close(5)
    with pytest.raises(ValueError, match="a stream has at least one frame"):
        TgcWriter(io.BytesIO(), header_of("packed")).close(5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", 0),
        ("hop_length", 1 << 21),
        ("channels", 256),
        ("n_codebooks", 0),
        ("n_codebooks", 60_000),
        ("codebook_size", 1),
        ("block_frames", 30_000),
        ("n_samples", 0),
        ("mode", "zip"),
        ("codec", "x" * 256),
        ("weight_hash", "ab"),
        ("encoder_hash", "ab"),
        ("model_hash", ""),
        ("side", {"x": np.array([np.nan])}),
        ("side_periods", {"x": 0}),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"must|at most|over|unknown|NaN"):
        replace(header_of(), **{name: value})


def test_claims_of_huge_streams_are_refused() -> None:
    data, seed = pack_header(header_of("packed"))
    payload = bytes(23)
    for claim in (pack_block(1 << 31, 10, payload, seed), end_bytes(1 << 31, 9, seed)):
        with pytest.raises(ValueError, match=f"at most {MAX_LOST_CODES} can be"):
            read(data + claim)
    events = read(data + pack_block(0, 11, payload, seed))  # more than block_frames
    assert events[-1] == Ended(0, None, "its end is missing")


def test_headers_are_bounded() -> None:
    with pytest.raises(ValueError, match="at most 65535"):
        pack_header(header_of("packed", side={"x": np.zeros(20_000, np.float32)}))


@pytest.mark.parametrize("part", range(4))
def test_2000_mutated_files_end_in_events_or_a_clear_error(part: int) -> None:
    """500 each; half have their checksums mended, so that damage reaches the parsers behind."""
    good = [write(draw(LEVELS, SIZE, 25, i), mode) for i, mode in enumerate(MODELS)]
    good += [good[0] + good[2], write(draw(LEVELS, SIZE, 28), side_periods={"scales": 7})]
    varied = {"scales": 7, "depth": 1}
    good += [write(draw(LEVELS, SIZE, 25), mode, side_periods=varied) for mode in MODELS]
    ends = {"whole": 0, "missing": 0, "error": 0}
    for seed in range(500):
        random = Random(f"tgc {part} {seed}")
        data = damage_bytes(random.choice(good), random)
        data = mend(data) if seed % 2 else data
        try:
            events = read(data)
        except ValueError as error:
            assert len(said := str(error)) < 300 and "\n" not in said
            ends["error"] += 1
            continue
        assert isinstance(events[0], Header) and isinstance(events[-1], Ended)
        for event in events:
            if isinstance(event, Block):
                low = -1 if event.problem else 0
                assert event.codes.min() >= low and event.codes.max() < SIZE
                if "depth" in event.side:
                    depth = event.side["depth"]
                    assert depth.min() >= (0 if event.problem else 1) and depth.max() <= LEVELS
        problems = any(getattr(event, "problem", "") for event in events)
        ends["missing" if problems else "whole"] += 1
    assert min(ends.values()) > 5, ends


def mend(data: bytes) -> bytes:
    """Make the checksums of a damaged file right, if its records are where they seem to be."""
    out = bytearray(data)
    size = int.from_bytes(out[6:8], "little")
    if not 8 < size <= len(out):
        return data
    seed = crc32c(bytes(out[: size - 4]))
    struct.pack_into("<I", out, size - 4, seed)
    at = size
    while (at := out.find(b"TGC", at)) >= 0:
        if out[at : at + 4] == b"TGCB" and at + 22 <= len(out):
            n = int.from_bytes(out[at + 10 : at + 14], "little")
            struct.pack_into("<I", out, at + 14, crc32c(bytes(out[at + 22 : at + 22 + n])))
            struct.pack_into("<I", out, at + 18, crc32c(bytes(out[at : at + 18]), seed))
        elif out[at : at + 4] == b"TGCE" and at + 20 <= len(out):
            struct.pack_into("<I", out, at + 16, crc32c(bytes(out[at : at + 16]), seed))
        at += 4
    return bytes(out)


def test_modes_have_numbers_that_stay() -> None:
    assert MODES == ("packed", "static", "adaptive", "model")
    assert AdaptiveCounts(8, 1024).model_hash.startswith("1f9148d2b572")
