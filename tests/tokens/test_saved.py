"""Files of a token dataset that are damaged, or lie outside its folder."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.tokens import rows_of
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.saved import split_of_file
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec


@pytest.fixture(scope="module")
def arrow_folder(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Tests must not change it."""
    out = tmp_path_factory.mktemp("out") / "arrow"
    tokenize_corpus(tiny_corpus, tiny_codec, out, workers=1, format="arrow", progress=False)
    return out


@pytest.fixture
def parquet(token_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(token_folder, tmp_path / "parquet"))


@pytest.fixture
def arrow(arrow_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(arrow_folder, tmp_path / "arrow"))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "without the end": lambda data: data[:-20],
    "other": lambda data: b"not a shard " * 99,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_named(parquet: Path, arrow: Path, damage: str) -> None:
    for file in (
        parquet / "data" / "train-00001-of-00004.parquet",
        arrow / "train" / "data-00000-of-00001.arrow",
    ):
        if damage == "without the end" and file.suffix == ".arrow":
            continue  # only the end of the stream is missing, and all rows are there
        file.write_bytes(DAMAGE[damage](file.read_bytes()))
        with pytest.raises(ValueError, match=r"cannot be read.*make the dataset again") as found:
            load_tokens(parquet if file.suffix == ".parquet" else arrow)
        assert str(found.value).startswith(str(file)) and "\n" not in str(found.value)


def test_a_shard_with_other_columns_is_named(parquet: Path) -> None:
    file = parquet / "data" / "train-00001-of-00004.parquet"
    pq.write_table(pa.table({"codes": [1, 2]}), file)
    with pytest.raises(ValueError, match=rf"{file} has other columns than .*00000-of-00002") as e:
        load_tokens(parquet)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"splits": 3}', '{"splits": [3]}'])
@pytest.mark.parametrize(
    "name", ["dataset_dict.json", "train/state.json", "test/dataset_info.json"]
)
def test_damaged_json_is_named(arrow: Path, name: str, text: str) -> None:
    (arrow / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{arrow}.*(damaged|lists no|no readable|no column)"):
        load_tokens(arrow)


ODD_NAMES = ["\0", "\ud800", "\x1b[31m", "x" * 9999, "", "."]


@pytest.mark.parametrize(
    "value", [None, 3, [3], [{}], {"a": 1}, *([{"filename": name}] for name in ODD_NAMES)]
)
def test_state_with_wrong_types(arrow: Path, value: object) -> None:
    state = json.loads((arrow / "train" / "state.json").read_text())
    (arrow / "train" / "state.json").write_text(json.dumps({**state, "_data_files": value}))
    with pytest.raises(ValueError, match=rf"{arrow}") as found:
        load_tokens(arrow)
    assert str(found.value).isprintable() and len(str(found.value)) < 600


def test_a_shard_that_claims_more_than_the_memory_is_named(arrow: Path) -> None:
    file = arrow / "train" / "data-00000-of-00001.arrow"
    messages = pa.ipc.MessageReader.open_stream(file.read_bytes())
    size = next(len(message.body) for message in messages if message.type == "record batch")
    claim = file.read_bytes().replace(struct.pack("<q", size), struct.pack("<q", size + 2**45))
    file.unlink()
    file.write_bytes(claim)
    with pytest.raises(ValueError, match=rf"{file} cannot be read"):
        load_tokens(arrow)


def test_a_missing_shard_is_named(arrow: Path) -> None:
    (arrow / "train" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(ValueError, match=r"lacks its file 'train/data-00000-of-00001.arrow'"):
        load_tokens(arrow)


def test_a_pipe_is_not_waited_for(arrow: Path, parquet: Path) -> None:
    for file in (arrow / "dataset_dict.json", parquet / "data" / "train-00001-of-00004.parquet"):
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(ValueError, match=r"not a finished|is not a file|cannot be read"):
            load_tokens(arrow if file.suffix == ".json" else parquet)


# -- names and links that lead out -----------------------------------------------


@pytest.mark.parametrize("absolute", [True, False])
def test_state_that_names_files_elsewhere(arrow: Path, arrow_folder: Path, absolute: bool) -> None:
    file = arrow_folder / "train" / "data-00000-of-00001.arrow"
    name = str(file) if absolute else os.path.relpath(file, arrow / "train")
    state = json.loads((arrow / "train" / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (arrow / "train" / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=rf"leads out of .*, to {file}: .*follow_links") as found:
        load_tokens(arrow)
    assert str(arrow) in str(found.value)
    assert len(load_tokens(arrow, follow_links=True).splits["train"]) == 6


def test_links_in_a_circle(arrow: Path) -> None:
    file = arrow / "train" / "data-00000-of-00001.arrow"
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(ValueError, match="lacks its file"):
        load_tokens(arrow)


def test_splits_elsewhere(arrow: Path, arrow_folder: Path) -> None:
    for name in (str(arrow_folder / "train"), f"../../{arrow_folder.parent.name}/arrow/train"):
        (arrow / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
        with pytest.raises(
            ValueError, match=r"leads out of .* folder, to .*train.*follow_links=True"
        ):
            load_tokens(arrow)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_linked_shards(
    arrow: Path, parquet: Path, arrow_folder: Path, token_folder: Path, format: str
) -> None:
    folder, source = (parquet, token_folder) if format == "parquet" else (arrow, arrow_folder)
    name = (
        next(file for file in source.rglob(f"train*.{format}"))
        if format == "parquet"
        else (source / "train" / "data-00000-of-00001.arrow")
    )
    link = folder / name.relative_to(source)
    link.unlink()
    link.symlink_to(name)
    with pytest.raises(ValueError, match=rf"{link} leads out of the dataset's folder, to {name}"):
        load_tokens(folder)
    assert len(load_tokens(folder, follow_links=True).splits["train"]) == 6


def test_links_inside_the_folder_and_to_it_are_followed(parquet: Path, tmp_path: Path) -> None:
    expected = rows_of(parquet)
    file = parquet / "data" / "train-00000-of-00004.parquet"
    file.rename(parquet / "moved")
    file.symlink_to("../moved")
    (tmp_path / "link").symlink_to(parquet)
    assert rows_of(tmp_path / "link") == expected


def test_snapshots_of_the_hub_cache_are_links_to_blobs(parquet: Path, tmp_path: Path) -> None:
    expected = rows_of(parquet)
    snapshot = tmp_path / "datasets--me--x" / "snapshots" / "0123"
    shutil.copytree(parquet, snapshot)
    (tmp_path / "datasets--me--x" / "blobs").mkdir()
    for i, file in enumerate(sorted(snapshot.glob("data/*.parquet"))):
        file.rename(tmp_path / "datasets--me--x" / "blobs" / str(i))
        file.symlink_to(f"../../../blobs/{i}")
    assert rows_of(snapshot) == expected


def test_a_card_cannot_name_other_files(parquet: Path, tmp_path: Path) -> None:
    """`datasets.load_dataset(folder)` would read the files that the card names."""
    folder = tmp_path / "plain"
    folder.mkdir()
    shutil.copy(parquet / "data" / "train-00000-of-00004.parquet", folder / "train.parquet")
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {parquet}/data/test*\n---\n"
    (folder / "README.md").write_text(card)
    assert list(load_tokens(folder).splits) == ["train"]


def test_folders_with_the_signs_of_patterns(parquet: Path, arrow: Path, tmp_path: Path) -> None:
    expected = rows_of(parquet)
    for folder in (parquet, arrow):
        other = folder.rename(tmp_path / f"{folder.name} [1]*?")
        assert rows_of(other) == expected


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("train", "train"),
        ("speech", "train"),
        ("my-test", "test"),
        ("dev_2", "validation"),
        ("eval-00000-of-00001", "eval"),
        ("testament", "train"),
    ],
)
def test_splits_of_plain_files(stem: str, split: str) -> None:
    assert split_of_file(stem) == split
