"""The stand-in of the hub answers huggingface_hub and datasets as the hub does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from makers.hub import TOKEN, LocalHub, environment, local_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "home", monkeypatch) as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "sub folder").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "sub folder" / "weights.safetensors").write_bytes(bytes(range(256)))
    return tmp_path / "model"


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_folder_makes_a_round_trip(hub: LocalHub, folder: Path, kind: str) -> None:
    api = HfApi()
    assert api.create_repo("me/thing", repo_type=kind).repo_id == "me/thing"
    api.create_repo("me/thing", repo_type=kind, exist_ok=True)
    first = api.upload_folder(repo_id="me/thing", folder_path=folder, repo_type=kind).oid
    (folder / "config.json").write_text('{"a": 1}')
    api.upload_folder(repo_id="me/thing", folder_path=folder, repo_type=kind)
    found = Path(snapshot_download("me/thing", repo_type=kind))
    assert (found / "config.json").read_text() == '{"a": 1}'
    assert (found / "sub folder" / "weights.safetensors").read_bytes() == bytes(range(256))
    old = hf_hub_download("me/thing", "config.json", repo_type=kind, revision=first)
    assert Path(old).read_text() == "{}"
    api.create_tag("me/thing", tag="v1", revision=first, repo_type=kind)
    tagged = hf_hub_download("me/thing", "config.json", repo_type=kind, revision="v1")
    assert Path(tagged).read_text() == "{}"
    info = api.repo_info("me/thing", repo_type=kind)
    assert {s.rfilename for s in info.siblings} >= {"config.json"}
    assert api.file_exists("me/thing", "config.json", repo_type=kind)
    assert not api.file_exists("me/thing", "none.json", repo_type=kind)


def test_trees_and_the_file_system(hub: LocalHub, folder: Path) -> None:
    hub.add("models", "me/thing", folder)
    top = {entry.path for entry in HfApi().list_repo_tree("me/thing")}
    assert top == {"config.json", "sub folder"}
    files = HfFileSystem()
    assert files.read_bytes("me/thing/sub folder/weights.safetensors") == bytes(range(256))
    with files.open("me/thing/sub folder/weights.safetensors") as file:
        file.seek(250)
        assert file.read() == bytes(range(250, 256))
    assert [p["name"] for p in files.ls("me/thing/sub folder")] == [
        "me/thing/sub folder/weights.safetensors"
    ]


def test_errors_are_those_of_the_hub(
    hub: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("models", "me/thing", folder)
    hub.add("models", "private/thing", folder)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("me/none", "config.json")
    with pytest.raises(RevisionNotFoundError):
        snapshot_download("me/thing", revision="none")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("me/thing", "none.json")
    assert Path(hf_hub_download("private/thing", "config.json", token=TOKEN)).is_file()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RepositoryNotFoundError, match="401"):
        HfApi().model_info("private/thing")


def test_datasets_are_pushed_and_loaded(hub: LocalHub) -> None:
    rows = DatasetDict(train=Dataset.from_dict({"a": [1, 2]}), test=Dataset.from_dict({"a": [3]}))
    rows.push_to_hub("me/rows")
    assert set(hub.files("datasets", "me/rows")) >= {
        "README.md",
        "data/train-00000-of-00001.parquet",
    }
    loaded = load_dataset("me/rows")
    assert {split: list(part["a"]) for split, part in loaded.items()} == {
        "train": [1, 2],
        "test": [3],
    }


def test_another_process_uses_the_hub(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    hub.add("models", "private/thing", folder)
    code = "import huggingface_hub as h; print(h.hf_hub_download('private/thing', 'config.json'))"
    variables = {**os.environ, **environment(hub, tmp_path / "other")}
    found = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).read_text() == "{}"
    assert str(tmp_path / "other") in found.stdout
