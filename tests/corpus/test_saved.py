"""Files that a saved dataset names outside its folder."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import datasets
import pytest

from makers.corpora import run, table, upload
from tokgen.corpus.listed import open_corpus

ARROW = "data-00000-of-00001.arrow"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved dataset, beside a dataset `elsewhere`."""
    rows = datasets.Dataset(table(tmp_path, 2))
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "saved")
    rows.save_to_disk(tmp_path / "elsewhere")
    return tmp_path / "saved"


def rewrite(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_state_json_that_names_a_file_outside(folder):
    name = f"../../elsewhere/{ARROW}"
    rewrite(folder / "train" / "state.json", _data_files=[{"filename": name}])
    with pytest.raises(
        ValueError, match=r"train/state.json names .*elsewhere.*outside.*follow_links"
    ):
        open_corpus(folder)
    assert len(run(open_corpus(folder, follow_links=True))[0]) == 2
    rewrite(
        folder / "train" / "state.json",
        _data_files=[{"filename": str(folder.parent / "elsewhere" / ARROW)}],
    )
    with pytest.raises(ValueError, match="outside the dataset's folder"):
        open_corpus(folder)


@pytest.mark.parametrize("outside", ["../elsewhere", "absolute"])
def test_dataset_dict_json_that_names_a_folder_outside(folder, outside):
    split = str(folder.parent / "elsewhere") if outside == "absolute" else outside
    rewrite(folder / "dataset_dict.json", splits=["train", split])
    with pytest.raises(ValueError, match=r"dataset_dict.json names .*elsewhere.*outside"):
        open_corpus(folder)


def test_links_in_a_saved_dataset(folder):
    (folder / "train" / ARROW).unlink()
    (folder / "train" / ARROW).symlink_to(folder.parent / "elsewhere" / ARROW)
    with pytest.raises(ValueError, match=r"data-00000.*outside the dataset's folder"):
        open_corpus(folder)
    assert len(run(open_corpus(folder, follow_links=True))[0]) == 2
    shutil.rmtree(folder / "train")
    (folder / "train").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(ValueError, match=r"train/state.json.*outside the dataset's folder"):
        open_corpus(folder)


def test_a_remote_dataset_that_names_a_file_outside(folder):
    rewrite(folder / "train" / "state.json", _data_files=[{"filename": "../../../../etc/passwd"}])
    url = upload(folder, f"memory://{uuid.uuid4().hex}/saved")
    with pytest.raises(ValueError, match=r"state.json names .*passwd.*outside"):
        open_corpus(url)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dataset_dict.json", "[" * 99999),
        ("dataset_dict.json", '{"splits": 3}'),
        ("train/state.json", '{"_data_files": "x"}'),
        ("train/state.json", "[]"),
        ("train/dataset_info.json", "{"),
        (f"train/{ARROW}", "junk"),
    ],
)
def test_damaged_files_are_one_error(folder, file, text):
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=r"damaged|cannot be opened") as caught:
        open_corpus(folder)
    assert str(folder) in str(caught.value)
