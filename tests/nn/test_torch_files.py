"""Checkpoints of torch open without running code, and damaged or hostile ones are named."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokgen.nn.torch_files import header_of, open_checkpoint, tensors_of


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def state() -> dict[str, Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}


def test_a_state_dict_opens_from_a_path_and_a_file(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "x.pt")
    for source in (tmp_path / "x.pt", io.BytesIO((tmp_path / "x.pt").read_bytes())):
        found = tensors_of(open_checkpoint(source, "x.pt"), "x.pt")
        assert all(torch.equal(found[name], tensor) for name, tensor in state().items())
    header = header_of(found, tmp_path / "x.pt", "x.yaml")
    assert header.tensors == {"a.weight": ("F32", (2, 3)), "count": ("I64", ())}
    assert header.n_values == 7


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    torch.save({"a": Trap(tmp_path / "sprung")}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt holds objects other than tensors"):
        open_checkpoint(tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match=r"y\.pt is not a checkpoint of torch 1\.6 or later"):
        open_checkpoint(tmp_path / "y.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_compressed_zip_is_refused(tmp_path: Path) -> None:
    """Its parts could be larger than memory."""
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as plain:
        parts = {part.filename: plain.read(part) for part in plain.infolist()}
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"bomb\.pt has the compressed part"):
        open_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("cut", [100, 700])
def test_a_damaged_file_is_named(tmp_path: Path, cut: int) -> None:
    torch.save(state(), tmp_path / "x.pt")
    content = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(content[:-cut])
    with pytest.raises(ValueError, match=r"x\.pt is not a checkpoint"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1], "holds a list, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"a": 1}, "'a' is a int, not a tensor"),
        ({3: torch.zeros(1)}, "3 is a Tensor, not a tensor"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "larger than what the file holds"),
        ({"a": torch.zeros(2).to_sparse()}, "not a dense tensor"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "of torch.complex64"),
    ],
)
def test_other_things_than_state_dicts_are_refused(wrong: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"x.pt.*{message}"):
        tensors_of(wrong, "x.pt")
