"""Rates and frame counts of a `CodecSpec`."""

from __future__ import annotations

import json

import pytest
import torch

from tokgen.codec.checks import check_codes
from tokgen.codec.spec import CodecSpec


def test_spec_numbers() -> None:
    spec = CodecSpec("x", sample_rate=44100, hop_length=512, n_codebooks=9, codebook_size=1000)
    assert spec.frame_rate == 44100 / 512
    assert spec.bitrate == pytest.approx(9 * 44100 / 512 * 9.96578, abs=0.1)
    assert [spec.n_frames(n) for n in (1, 512, 513)] == [1, 1, 2]
    with pytest.raises(ValueError, match=r"hop_length = 0.5"):
        CodecSpec("x", 44100, 0.5, 9, 1000)  # type: ignore[arg-type]


def test_spec_numbers_of_chunks() -> None:
    """EnCodec at 48 kHz: a second each, overlapping by 1 %."""
    spec = CodecSpec("x", 48000, 320, 16, 1024, chunk_length=48000, chunk_stride=47520)
    assert spec.frame_rate == 150 * 48000 / 47520
    assert [spec.n_chunks(n) for n in (1, 47520, 47521, 48000, 95041)] == [1, 1, 2, 2, 3]
    assert [spec.n_frames(n) for n in (1, 47521)] == [150, 300]
    assert [spec.n_samples(t) for t in (150, 300)] == [47520, 95040]
    for t in (0, 149, 151):
        with pytest.raises(ValueError, match=f"{t} frames: x codes chunks of 150 frames"):
            spec.n_samples(t)
    for length, stride in ((48001, 47520), (48000, 48001), (48000, 0)):
        with pytest.raises(ValueError, match=f"chunks of {length} samples every {stride}"):
            CodecSpec("x", 48000, 320, 16, 1024, chunk_length=length, chunk_stride=stride)


def test_levels_may_have_different_sizes() -> None:
    spec = CodecSpec("x", 24000, 1920, 3, 16384, level_sizes=(16384, 4096, 4096))
    assert spec.bitrate == 12.5 * (14 + 12 + 12)
    assert spec.sizes == (16384, 4096, 4096)
    again = CodecSpec(**json.loads(json.dumps(spec.as_dict())))
    assert again == spec
    plain = CodecSpec("x", 24000, 1920, 3, 4096)
    assert "level_sizes" not in plain.as_dict()
    assert plain.sizes == (4096,) * 3
    for sizes in ((16384, 4096), (4096,) * 3, (16385, 1, 1)):
        with pytest.raises(ValueError, match="must be 3 sizes, the largest of them codebook_size"):
            CodecSpec("x", 24000, 1920, 3, 16384, level_sizes=sizes)
    with pytest.raises(ValueError, match="each must be at least 1"):
        CodecSpec("x", 24000, 1920, 2, 9, level_sizes=(9, 0))
    with pytest.raises(ValueError, match="must be a list of integers"):
        CodecSpec("x", 24000, 1920, 2, 9, level_sizes=(9, 2.5))  # type: ignore[arg-type]


def test_codes_past_the_size_of_a_level_are_refused() -> None:
    spec = CodecSpec("x", 24000, 1920, 2, 9, level_sizes=(9, 3))
    codes = torch.tensor([[[8, 0], [2, 1]]])
    assert check_codes(codes, spec).equal(codes)
    assert check_codes(codes[:, :1], spec).equal(codes[:, :1])
    with pytest.raises(ValueError, match=r"level 1 has code 8: x has entries 0\.\.2 there"):
        check_codes(codes.flip(1), spec)
