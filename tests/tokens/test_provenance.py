"""A token dataset keeps its provenance on every way that rows travel."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import (
    Dataset,
    DatasetDict,
    Value,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)

from makers.audio import RATE, make_tone
from makers.codecs import make_stft_codec
from makers.tokens import rows_of
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.dataset import concatenate_tokens, load_tokens
from tokgen.tokens.provenance import (
    LARGEST,
    METADATA_KEY,
    Provenance,
    attach_provenance,
    provenance_of,
)
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec

OLD = Path(__file__).parent / "old"


@pytest.fixture(scope="module")
def provenance(token_folder: Path) -> Provenance:
    return Provenance.from_json((token_folder / "provenance.json").read_bytes(), "")


def test_load_dataset_opens_the_folder(token_folder: Path, provenance: Provenance) -> None:
    found = load_dataset(str(token_folder))
    assert set(found) == {"train", "validation", "test"}
    assert provenance_of(found) == provenance
    assert {split: part.to_list() for split, part in found.items()} == {
        split: part.to_list() for split, part in load_tokens(token_folder).splits.items()
    }
    assert provenance_of(load_dataset(str(token_folder), split="train[:1]")) == provenance
    assert provenance_of(load_dataset(str(token_folder), streaming=True)) == provenance


def test_other_libraries_find_it_in_the_parquet_files(
    token_folder: Path, provenance: Provenance
) -> None:
    files = sorted(token_folder.glob("data/*.parquet"))
    assert files[0].name == "test-00000-of-00002.parquet" and len(files) == 8
    for file in files:
        text = pq.read_schema(file).metadata[METADATA_KEY]
        assert Provenance.from_json(text, file.name) == provenance


WAYS: dict[str, Callable[[Dataset], Dataset]] = {
    "select": lambda rows: rows.select([0]),
    "filter": lambda rows: rows.filter(lambda row: row["n_samples"] > 9000),
    "map": lambda rows: rows.map(lambda row: {"n_frames": len(row["codes"])}),
    "map codes": lambda rows: rows.map(lambda row: {"codes": row["codes"][:2]}),
    "sort": lambda rows: rows.sort("n_samples"),
    "shuffle": lambda rows: rows.shuffle(seed=0).flatten_indices(),
    "split": lambda rows: rows.train_test_split(test_size=2)["test"],
    "columns": lambda rows: rows.select_columns(["codes"]),
    "rename": lambda rows: rows.rename_column("codes", "tokens"),
    "format": lambda rows: rows.with_format("numpy"),
    "join": lambda rows: concatenate_datasets([rows, rows]),
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_are_made_from_it_keep_it(
    token_folder: Path, provenance: Provenance, way: str
) -> None:
    for rows in (
        load_tokens(token_folder).splits["train"],
        load_dataset(str(token_folder), split="train"),
    ):
        assert provenance_of(WAYS[way](rows)) == provenance


@pytest.mark.parametrize("opened", ["load_tokens", "load_dataset"])
def test_written_again(
    token_folder: Path, provenance: Provenance, tmp_path: Path, opened: str
) -> None:
    splits = (
        load_tokens(token_folder).splits
        if opened == "load_tokens"
        else load_dataset(str(token_folder))
    )
    some = DatasetDict({split: part.select(range(2)) for split, part in splits.items()})
    some.save_to_disk(tmp_path / "disk")
    assert provenance_of(load_from_disk(tmp_path / "disk")) == provenance
    assert load_tokens(tmp_path / "disk").provenance == provenance
    for split, part in some.items():
        part.to_parquet(tmp_path / "again" / "data" / f"{split}-00000-of-00001.parquet")
    assert load_tokens(tmp_path / "again").provenance == provenance
    assert provenance_of(load_dataset(str(tmp_path / "again"))) == provenance
    assert rows_of(tmp_path / "again") == rows_of(tmp_path / "disk")


def test_load_tokens_opens_what_datasets_wrote(
    token_folder: Path, provenance: Provenance, tmp_path: Path
) -> None:
    train = load_tokens(token_folder).splits["train"]
    train.to_parquet(tmp_path / "x" / "train.parquet")
    for source in (tmp_path / "x", tmp_path / "x" / "train.parquet", train):
        found = load_tokens(source)
        assert found.provenance == provenance
        assert {split: len(part) for split, part in found.splits.items()} == {"train": len(train)}
    assert load_tokens(load_tokens(token_folder).splits).provenance == provenance
    with pytest.raises(ValueError, match=r"no split 'dev': the tokens have train"):
        found.codes("dev", 0)


def test_parquet_files_without_provenance_are_refused(tmp_path: Path) -> None:
    Dataset.from_dict({"codes": [[1]], "n_samples": [1]}).to_parquet(
        tmp_path / "x" / "train.parquet"
    )
    with pytest.raises(ValueError, match="no readable provenance"):
        load_tokens(tmp_path / "x")


def test_a_file_written_by_pyarrow_keeps_it(
    token_folder: Path, provenance: Provenance, tmp_path: Path
) -> None:
    """Also if only the schema's own key is left."""
    table = pq.read_table(token_folder / "data" / "train-00000-of-00004.parquet")
    metadata = {METADATA_KEY: table.schema.metadata[METADATA_KEY]}
    for name, kept in (("all", table.schema.metadata), ("key", metadata)):
        file = tmp_path / name / "data" / "train-00000-of-00001.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(table.slice(0, 2).replace_schema_metadata(kept), file)
        found = load_tokens(tmp_path / name)
        assert found.provenance == provenance == provenance_of(found.splits["train"])


def test_rows_of_different_codecs_cannot_be_joined(
    tiny_corpus: Path, token_folder: Path, tmp_path: Path
) -> None:
    settings = {"workers": 1, "progress": False}
    tokenize_corpus(tiny_corpus, make_stft_codec(5), tmp_path / "other", **settings)
    mine, other = load_tokens(token_folder).splits, load_tokens(tmp_path / "other").splits
    with pytest.raises(ValueError, match="features can't be aligned"):
        concatenate_datasets([mine["train"], other["train"]])
    with pytest.raises(ValueError, match=r"splits \['test'\] have another provenance than 'train'"):
        provenance_of(DatasetDict(train=mine["train"], test=other["test"]))
    with pytest.raises(ValueError, match="no splits"):
        provenance_of(DatasetDict())


def test_corpora_are_joined(tiny_corpus: Path, token_folder: Path, tmp_path: Path) -> None:
    settings = {"workers": 1, "progress": False}
    shutil.copytree(tiny_corpus, tmp_path / "other")
    (tmp_path / "other" / "b.wav").unlink()
    table = (tmp_path / "other" / "metadata.csv").read_text()
    kept = [line for line in table.splitlines(keepends=True) if not line.startswith("b.wav")]
    (tmp_path / "other" / "metadata.csv").write_text("".join(kept))
    tokenize_corpus(tmp_path / "other", make_stft_codec(), tmp_path / "more", **settings)
    first, second = load_tokens(token_folder), load_tokens(tmp_path / "more")
    found = concatenate_tokens([first, second])
    assert found.provenance.corpus == "tiny corpus + other"
    assert provenance_of(found.splits) == found.provenance
    assert provenance_of(first.splits) == first.provenance
    rows = first.splits["train"].to_list() + second.splits["train"].to_list()
    assert len(rows) == 11 and found.splits["train"].to_list() == rows
    fewer, codec = tmp_path / "fewer", tmp_path / "codec"
    tokenize_corpus(tiny_corpus, make_stft_codec(), fewer, n_codebooks=2, **settings)
    with pytest.raises(ValueError, match="'tiny corpus' and 'tiny corpus' differ in levels"):
        concatenate_tokens([first, load_tokens(fewer)])
    tokenize_corpus(tiny_corpus, make_stft_codec(5), codec, **settings)
    with pytest.raises(ValueError, match="the tokens were made by codec"):
        concatenate_tokens([first, load_tokens(codec)])


def test_any_split_name_can_be_opened(tiny_codec: StftCodec, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    names = ["train", "train_more", "dev-clean", "é", "all", "../x"]
    lines = [f"{i}.wav,{name}\n" for i, name in enumerate(names)]
    for i in range(len(names)):
        write_audio(corpus / f"{i}.wav", make_tone(0.3, i), RATE)
    (corpus / "metadata.csv").write_text("file_name,split\n" + "".join(lines), encoding="utf-8")
    tokenize_corpus(corpus, tiny_codec, tmp_path / "tokens", workers=1, progress=False)
    rows = {split: part["id"][:] for split, part in load_dataset(str(tmp_path / "tokens")).items()}
    opened = load_tokens(tmp_path / "tokens").splits
    assert rows == {split: part["id"][:] for split, part in opened.items()}
    assert rows == {"train": ["0"], "train_more": ["1"], "dev_clean": ["2"], "é": ["3"],
                    "all_": ["4"], "_x": ["5"]}  # fmt: skip


# -- old datasets --------------------------------------------------------------


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_datasets_of_an_older_version(format: str, tmp_path: Path) -> None:
    """`old` was written with provenance.json and the descriptions alone, and old shard names."""
    found = load_tokens(OLD / format)
    assert {split: list(part["id"]) for split, part in found.splits.items()} == {
        "train": ["a", "b"],
        "test": ["c"],
    }
    assert found.provenance.spec.name == "tiny" and found.provenance.corpus == "two clips"
    assert rows_of(OLD / "arrow") == rows_of(OLD / "parquet")
    found.splits["train"].to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert load_tokens(tmp_path).provenance == found.provenance


def test_a_dataset_that_lacks_newer_settings(tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    shutil.copytree(OLD / "arrow", out)
    for info in [*out.glob("*/dataset_info.json"), out / "provenance.json"]:
        text = json.loads(info.read_text())
        old = json.loads(text["description"]) if "description" in text else text
        for kept, names in (
            (old, ["side_names", "precision"]),
            (old["conditioning"], ["chunk_length", "chunk_stride", "kind"]),
            (old["codec"], ["chunk_length", "chunk_stride", "channels"]),
        ):
            for name in names:
                del kept[name]
        old["mfcc"] = old.pop("conditioning")
        written = {**text, "description": json.dumps(old)} if "description" in text else old
        info.write_text(json.dumps(written))
    found, expected = load_tokens(out).provenance, load_tokens(OLD / "arrow").provenance
    assert found.side_names == [] and found.spec == expected.spec
    assert "chunk_length" not in found.conditioning
    assert found.makes_equal_rows(expected) and expected.makes_equal_rows(found)


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_an_older_dataset_is_recognised_as_complete(format: str, tmp_path: Path) -> None:
    corpus = tmp_path / "two clips"
    for seed, (name, seconds) in enumerate((("a.wav", 0.3), ("b.wav", 0.2), ("c.wav", 0.25))):
        write_audio(corpus / name, make_tone(seconds, seed), RATE)
    (corpus / "bad.wav").write_text("not audio")
    table = "file_name,text,speaker,split\na.wav,one,ann,train\nb.wav,two,ben,train\n"
    (corpus / "metadata.csv").write_text(table + "c.wav,three,ann,test\n")
    before = {path: path.read_bytes() for path in OLD.rglob("*") if path.is_file()}
    report = tokenize_corpus(open_corpus(corpus), make_stft_codec(), OLD / format, progress=False)
    assert (report.resumed_rows, report.n_rejected) == (3, 1)
    assert before == {path: path.read_bytes() for path in OLD.rglob("*") if path.is_file()}


# -- hostile and missing provenance --------------------------------------------


def test_rows_without_provenance_are_refused(token_folder: Path, tmp_path: Path) -> None:
    rows = load_tokens(token_folder).splits["train"]
    plain = Dataset.from_list(rows.to_list())
    with pytest.raises(ValueError, match=r"no readable provenance.*open an old one with"):
        provenance_of(plain)
    plain.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="no readable provenance"):
        load_tokens(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "[" * LARGEST,
        "{}",
        '"/etc/passwd"',
        " " * LARGEST + "{}",
        '{"codec": {"name": 5}}',
    ],
)
def test_hostile_text(text: str, token_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"x has no readable provenance"):
        Provenance.from_json(text, "x")


@pytest.mark.parametrize(
    "changed",
    [
        {"n_codebooks": 5},
        {"n_codebooks": "4"},
        {"n_codebooks": True},
        {"hop_length": 0},
        {"codec": {}},
        {"codec": []},
        {"conditioning": {"sample_rate": 16000, "hop_length": 320, "n_mfcc": "30"}},
        {"conditioning": {"sample_rate": 16000, "hop_length": 320, "n_mfcc": 30.5}},
        {"conditioning": {"kind": "../../x", "sample_rate": 16000, "hop_length": 320}},
        {"corpus": ["a"]},
        {"side_names": [1]},
        {"side_names": 3},
        {"more": 1},
    ],
)
def test_hostile_values(provenance: Provenance, changed: dict) -> None:
    text = json.dumps({**provenance.as_dict(), **changed})
    with pytest.raises(ValueError, match="no readable provenance"):
        Provenance.from_json(text, "x")


def test_damaged_provenance_is_not_replaced_by_another(token_folder: Path) -> None:
    rows = load_tokens(token_folder).splits["train"]
    features = rows.features.copy()
    features["id"] = Value("string", id="tokgen.provenance {")
    damaged = Dataset(rows.data, info=rows.info.copy())
    damaged.info.features = features
    with pytest.raises(ValueError, match="no readable provenance"):
        provenance_of(damaged)


def test_attaching_copies_no_rows(token_folder: Path, provenance: Provenance) -> None:
    rows = load_tokens(OLD / "arrow").splits["train"].select([1])
    attached = attach_provenance(rows, provenance)
    assert attached.to_list() == rows.to_list() and list(attached["id"]) == ["b"]
    assert provenance_of(attached) == provenance != provenance_of(rows)
    assert attached.data.nbytes == rows.data.nbytes
