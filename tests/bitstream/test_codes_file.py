"""Tests of codes files: round trip, and errors for files that are not codes files."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tokgen.bitstream.codes_file import MAX_CODES, read_codes, write_codes
from tokgen.codec.spec import CodecSpec

SPEC = CodecSpec("little", 16000, 320, 4, 60, "0" * 64)
METADATA = {
    "kind": "tokgen codes 1",
    "codec": "little",
    "weight_hash": "0" * 64,
    "n_samples": "600",
    "sample_rate": "16000",
}


@pytest.mark.parametrize(("size", "dtype"), [(1 << 16, torch.uint16), (1 << 17, torch.int32)])
def test_round_trip(tmp_path: Path, size: int, dtype: torch.dtype) -> None:
    path = tmp_path / "new" / "x.safetensors"
    codes, scales = torch.tensor([[0, size - 1], [5, 7]]), torch.tensor([0.5, 2.0])
    write_codes(path, codes, 600, replace(SPEC, codebook_size=size), {"scales": scales})
    with safe_open(str(path), framework="pt") as file:
        assert file.get_tensor("codes").dtype == dtype and file.metadata() == METADATA
    found = read_codes(path)
    assert found.codes.equal(codes) and found.side["scales"].equal(scales)
    assert (found.n_samples, found.sample_rate, found.codec) == (600, 16000, "little")
    assert repr(found) == f"CodesFile({path}: 2 levels x 2 frames, 0.04 s; little)"
    found.check_codec(replace(SPEC, codebook_size=size))
    with pytest.raises(
        ValueError, match=r"x.*: made by codec 'little'.*not by 'other' \(weights 111"
    ):
        found.check_codec(replace(SPEC, name="other", weight_hash="1" * 64))


def test_files_that_are_not_codes_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_codes(path)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="is not a codes file: it is damaged"):
        read_codes(path)
    save_file({"codes": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match="is not a codes file; make one"):
        read_codes(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"n_samples": "many"}, "n_samples is 'many', but must be an integer in 1.."),
        ({"n_samples": "-600"}, "n_samples is '-600', but must be an integer in 1.."),
        ({"n_samples": "0"}, "n_samples is '0'"),
        ({"n_samples": "1e3"}, "n_samples is '1e3'"),
        ({"n_samples": 5000 * "1"}, "n_samples has 5000 characters, over the limit of 500"),
        ({"n_samples": 400 * "1"}, "n_samples is '1{40}', but"),
        ({"n_samples": 17 * "9"}, "n_samples is '9{17}', but must be an integer in 1..2097152"),
        ({"sample_rate": "0"}, "sample_rate is '0', but must be an integer in 1..768000"),
        ({"sample_rate": "10000000"}, "sample_rate is '10000000'"),
        ({"codec": None}, "its metadata has no 'codec'"),
        ({"beam": "0"}, "beam is '0', but must be an integer in 1..1024"),
        ({"codec": 501 * "x"}, "codec has 501 characters, over the limit of 500"),
    ],
)
def test_damaged_metadata(tmp_path: Path, metadata: dict, message: str) -> None:
    path = tmp_path / "x.safetensors"
    codes = torch.zeros(2, 2, dtype=torch.int32)
    save_file(
        {"codes": codes}, path, {k: v for k, v in {**METADATA, **metadata}.items() if v is not None}
    )
    with pytest.raises(ValueError, match=rf"x\.safetensors is damaged: {message}"):
        read_codes(path)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, 2), r"codes of shape \(2, 2\) F32: expected \[K, T\] U16 or I32"),
        (torch.zeros(2, 2, dtype=torch.int64), "I64: expected"),
        (torch.zeros(2, dtype=torch.uint16), r"shape \(2,\) U16: expected"),
        (torch.zeros(2, 0, dtype=torch.uint16), r"shape \(2, 0\) U16: expected"),
        (torch.full((2, 2), -3, dtype=torch.int32), "a code is -3, below 0"),
    ],
)
def test_damaged_codes(tmp_path: Path, codes: torch.Tensor, message: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"codes": codes}, path, METADATA)
    with pytest.raises(ValueError, match=rf"x\.safetensors is damaged: .*{message}"):
        read_codes(path)


def test_sizes_are_checked_before_codes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = {
        "__metadata__": METADATA,
        "codes": {"dtype": "U16", "shape": [8, 1 << 27], "data_offsets": [0, 1 << 31]},
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:  # sparse
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + (1 << 31))
    with pytest.raises(ValueError, match=f"at most {MAX_CODES} codes"):
        read_codes(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + text)
    with pytest.raises(ValueError, match="a header of 1152921504606846976 bytes does not fit"):
        read_codes(path)


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (torch.zeros(1, 3), r"'scales' of shape \(1, 3\) F32: expected \[S\] F32"),
        (torch.zeros(2, dtype=torch.float64), r"'scales' of shape \(2,\) F64"),
        (torch.tensor([1.0, torch.nan]), "'scales' holds NaN or infinity"),
        (torch.tensor([1.0, torch.inf]), "'scales' holds NaN or infinity"),
        (torch.zeros(9), r"'scales' of shape .* F32, at most 8 values"),
    ],
)
def test_damaged_side_information(tmp_path: Path, side: torch.Tensor, message: str) -> None:
    path = tmp_path / "x.safetensors"
    codes = torch.zeros(4, 2, dtype=torch.uint16)
    save_file({"codes": codes, "side.scales": side}, path, METADATA)
    with pytest.raises(ValueError, match=f"is damaged: side information {message}"):
        read_codes(path)


@pytest.mark.parametrize(
    ("codes", "metadata", "message"),
    [
        (torch.full((4, 2), 60), {}, "the code 60, but 'little' has codes below 60"),
        (torch.zeros(5, 2), {}, "levels 5, but 'little' has at most 4"),
        (torch.zeros(4, 3), {}, "frames 3, but 'little' has 2 for 600 samples"),
        (torch.zeros(4, 2), {"n_samples": "6000"}, "frames 2, but 'little' has 19 for 6000"),
        (torch.zeros(4, 2), {"sample_rate": "8000"}, "Hz 8000, but 'little' has 16000"),
    ],
)
def test_numbers_that_contradict_the_codec(
    tmp_path: Path, codes: torch.Tensor, metadata: dict, message: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"codes": codes.to(torch.uint16)}, path, {**METADATA, **metadata})
    with pytest.raises(ValueError, match=rf"x\.safetensors: {message}"):
        read_codes(path).check_codec(SPEC)


def test_codes_of_another_length_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \[K, 3\]"):
        write_codes(tmp_path / "x", torch.zeros(2, 2, dtype=torch.long), 641, SPEC)
