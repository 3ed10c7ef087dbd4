"""Tests of codes files: round trip, and errors for files that are not codes files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tokgen.bitstream.codes_file import read_codes, write_codes
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
    found.check_codec(SPEC)
    with pytest.raises(ValueError, match=r"by codec 'little'.*not by 'other' \(weights 111"):
        found.check_codec(replace(SPEC, name="other", weight_hash="1" * 64))


def test_files_that_are_not_codes_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_codes(path)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a codes file, or damaged"):
        read_codes(path)
    save_file({"codes": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match="is not a codes file; make one"):
        read_codes(path)
    save_file({"codes": torch.zeros(2, 2)}, path, METADATA)
    with pytest.raises(ValueError, match=r"expected \[K, T\] uint16 or int32"):
        read_codes(path)
    codes = torch.zeros(2, 2, dtype=torch.int32)
    save_file({"codes": codes}, path, {**METADATA, "n_samples": "many"})
    with pytest.raises(ValueError, match="many"):
        read_codes(path)
    save_file({"codes": codes}, path, {k: v for k, v in METADATA.items() if k != "codec"})
    with pytest.raises(ValueError, match="damaged: 'codec'"):
        read_codes(path)


@pytest.mark.parametrize("side", [torch.zeros(1, 3), torch.tensor([1.0, torch.nan])])
def test_damaged_side_information(tmp_path: Path, side: torch.Tensor) -> None:
    path = tmp_path / "x.safetensors"
    write_codes(path, torch.zeros(4, 2, dtype=torch.long), 600, SPEC, {"scales": side})
    with pytest.raises(ValueError, match=r"'scales' of shape .* expected \[S\] float32 without"):
        read_codes(path)


def test_codes_of_another_length_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \[K, 3\]"):
        write_codes(tmp_path / "x", torch.zeros(2, 2, dtype=torch.long), 641, SPEC)
