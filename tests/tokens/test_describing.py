"""Facts about token and latent datasets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.continuous import make_continuous
from makers.hub import local_hub
from tokgen.cli.main import main
from tokgen.storage import Storage
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.describing import describe_dataset
from tokgen.tokens.places import is_dataset_place
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec

QUIET = {"workers": 1, "progress": False}


def test_counts_are_those_of_the_rows(token_folder: Path, tiny_codec: StftCodec) -> None:
    tokens, found = load_tokens(token_folder), describe_dataset(token_folder)
    assert found.provenance == tokens.provenance
    assert {s.split: s.n_clips for s in found.splits} == tokens.splits.num_rows
    for split in found.splits:
        rows = tokens.splits[split.split]
        assert split.n_samples == sum(rows["n_samples"])
        assert split.n_frames == sum(map(len, rows["codes"]))
        assert (split.shortest, split.longest) == (min(rows["n_samples"]), max(rows["n_samples"]))
        assert split.n_texts == sum(bool(text) for text in rows["text"])
        assert split.speakers == {s for s in rows["speaker"] if s}
    assert any(s.n_texts for s in found.splits)
    assert found.kbps == tiny_codec.spec.bitrate / 1000
    assert found.n_files == len(list(token_folder.glob("data/*.parquet"))) > len(found.splits)
    lines = (token_folder / "rejections.jsonl").read_text().splitlines()
    assert found.n_rejected == len(lines)


def test_text_and_json(token_folder: Path) -> None:
    found = describe_dataset(token_folder)
    lines = str(found).splitlines()
    for line in ("codec        tiny", "conditioning mfcc, 30 values per frame"):
        assert line in lines
    assert any(line.startswith("levels       4 of 4, ") for line in lines)
    assert [line.split()[0] for line in lines[-len(found.splits) - 2 :]] == [
        "split", *(s.split for s in found.splits), "total",
    ]  # fmt: skip
    n = sum(s.n_clips for s in found.splits)
    assert lines[-1].split()[1] == str(n)
    about = json.loads(json.dumps(found.to_dict()))
    assert about["provenance"]["codec"]["name"] == "tiny" and about["n_bytes"] > 0
    assert sum(s["n_clips"] for s in about["splits"]) == n
    assert len(found.to_frame()) == len(found.splits)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_kinds_of_datasets(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path, format: str
) -> None:
    options = {**QUIET, "format": format}
    tokenize_corpus(tiny_corpus, tiny_codec, tmp_path / "a", n_codebooks=2, **options)
    tokenize_corpus(tiny_corpus, make_continuous(), tmp_path / "b", conditioning=None, **options)
    codes, latents = describe_dataset(tmp_path / "a"), describe_dataset(tmp_path / "b")
    assert codes.format == latents.format == format
    assert codes.kbps == pytest.approx(tiny_codec.spec.bitrate / 2000)
    assert "levels       2 of 4, " in str(codes)
    assert latents.provenance.latent_dim == 8 and latents.kbps == pytest.approx(8 * 16 * 50 / 1000)
    assert "latents      8 per frame" in str(latents) and "conditioning none" in str(latents)
    assert [s.n_clips for s in codes.splits] == [s.n_clips for s in latents.splits]


def test_an_empty_split_has_no_shortest_clip(token_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    shutil.copytree(token_folder, folder)
    whole = str(describe_dataset(folder)).splitlines()[-1].split()
    for file in folder.glob("data/validation*.parquet"):
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    found = describe_dataset(folder)
    assert [s.n_clips for s in found.splits if s.split == "validation"] == [0]
    total = str(found).splitlines()[-1].split()
    assert total[4] == f"{min(s.shortest for s in found.splits if s.n_clips) / 16000:.2f}"
    assert total[1] != whole[1]


def test_packed_codes(tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    tokenize_corpus(tiny_corpus, tiny_codec, tmp_path / "packed", codes="packed", **QUIET)
    assert describe_dataset(tmp_path / "packed").packed


def test_hub_datasets_are_described_without_their_codes(
    token_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    local = describe_dataset(token_folder)
    with local_hub(tmp_path / "home", monkeypatch) as hub:
        hub.add("datasets", "me/tokens", token_folder, tag="v1")
        found = describe_dataset("me/tokens", revision="v1")
        assert (found.provenance, found.splits) == (local.provenance, local.splits)
        assert found.n_bytes == local.n_bytes
        assert not (tmp_path / "home" / "datasets").exists()  # nothing was copied
        load_tokens(token_folder).push_to_hub("me/pushed")
        pushed = describe_dataset("me/pushed")
        assert (pushed.provenance, pushed.splits) == (local.provenance, local.splits)
        assert main(["info", "me/tokens", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["source"] == "me/tokens"
        assert main(["info", "hf://datasets/me/tokens"]) == 0
        assert main(["info", "me/nothing"]) == 2
        said = capsys.readouterr().err
        assert "no codec 'me/nothing'" in said and "nor a dataset: me/nothing" in said


def test_places(token_folder: Path, tiny_codec_folder: Path, tiny_corpus: Path) -> None:
    file = next(token_folder.glob("data/*.parquet"))
    for place in (token_folder, file, "s3://bucket/tokens"):
        assert is_dataset_place(place)
    for place in (tiny_codec_folder, tiny_corpus, "speech-16k", "owner/name"):
        assert not is_dataset_place(place)
    assert describe_dataset(file).splits[0].n_clips == pq.read_metadata(file).num_rows


def _cut(folder: Path) -> None:
    file = next(folder.glob("data/*.parquet"))
    file.write_bytes(file.read_bytes()[:-20])


def _empty(folder: Path) -> None:
    shutil.rmtree(folder / "data")


def _negative(folder: Path) -> None:
    file = next(folder.glob("data/*.parquet"))
    table = pq.read_table(file)
    i = table.column_names.index("n_samples")
    wrong = pa.array([-1] * len(table), pa.int64())
    pq.write_table(table.set_column(i, "n_samples", wrong), file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"parquet cannot be read .*: restore it"),
        (_empty, "is not a finished dataset"),
        (_negative, "n_samples is no integer above 0"),
    ],
)
def test_damaged_datasets(
    token_folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = shutil.copytree(token_folder, tmp_path / "copy")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        describe_dataset(folder)


def test_what_is_no_dataset(tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no dataset nothing"):
        describe_dataset("nothing")
    pq.write_table(pa.table({"n_samples": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has no readable provenance"):
        describe_dataset(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="not a finished dataset"):
        describe_dataset(tiny_corpus)
    with pytest.raises(ValueError, match="only hub ids have revisions"):
        describe_dataset(tiny_corpus, revision="v1")


def test_a_url(token_folder: Path) -> None:
    store = Storage("memory://described")
    for path in token_folder.rglob("*"):
        if path.is_file():
            store.write(str(path.relative_to(token_folder)), path.read_bytes())
    assert describe_dataset("memory://described").splits == describe_dataset(token_folder).splits
