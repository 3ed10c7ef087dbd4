"""Token datasets with packed codes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from makers.codecs import make_encodec
from tokgen.codec.packing import packed_size
from tokgen.storage import Storage
from tokgen.tokens.dataset import concatenate_tokens, load_tokens
from tokgen.tokens.saved import lengths_in
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec


@pytest.fixture(scope="module")
def packed_folder(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `token_folder` holds, with packed codes."""
    out = tmp_path_factory.mktemp("out") / "packed"
    more = {"shard_rows": 3, "workers": 1, "progress": False, "codes": "packed"}
    tokenize_corpus(tiny_corpus, tiny_codec, out, **more)
    return out


def test_packed_codes_load_as_the_same_rows(
    packed_folder: Path, token_folder: Path, tiny_codec: StftCodec, capsys: pytest.CaptureFixture
) -> None:
    packed, plain = load_tokens(packed_folder), load_tokens(token_folder)
    assert capsys.readouterr() == ("", "")
    assert packed.provenance == plain.provenance and set(packed.splits) == set(plain.splits)
    for split, rows in plain.splits.items():
        found = packed.splits[split]
        assert found.features == rows.features and found.column_names == rows.column_names
        assert found.to_list() == rows.to_list()
    again = packed.decode(tiny_codec, "train", 0)
    assert again.equal(plain.decode(tiny_codec, "train", 0))
    both = concatenate_tokens([packed, plain])
    assert len(both.splits["train"]) == 2 * len(plain.splits["train"])
    assert list(lengths_in(Storage(packed_folder))) == list(lengths_in(Storage(token_folder)))


def test_a_code_takes_its_bits(packed_folder: Path, tiny_codec: StftCodec) -> None:
    for file in sorted((packed_folder / "data").iterdir()):
        for row in pq.read_table(file).to_pylist():
            n = tiny_codec.spec.n_frames(row["n_samples"]) * tiny_codec.spec.n_codebooks
            assert len(row["codes"]) == packed_size(n, 60) == -(-n * 6 // 8)
    assert "packed bits" in (packed_folder / "README.md").read_text()
    assert "--codes packed" in (packed_folder / "README.md").read_text()


def test_rows_that_datasets_opened_are_unpacked(packed_folder: Path, token_folder: Path) -> None:
    rows = load_dataset(str(packed_folder))
    some = rows["train"].select([2, 0])
    found, plain = load_tokens(some).splits["train"], load_tokens(token_folder).splits["train"]
    assert found["codes"] == plain.select([2, 0])["codes"]
    assert load_tokens(rows).provenance == load_tokens(token_folder).provenance


def test_side_information_stays(tiny_corpus: Path, tmp_path: Path) -> None:
    codec = make_encodec("encodec-48k")
    for codes in ("lists", "packed"):
        more = {"workers": 1, "progress": False, "codes": codes, "conditioning": "none"}
        tokenize_corpus(tiny_corpus, codec, tmp_path / codes, **more)
    packed, plain = (load_tokens(tmp_path / codes).splits for codes in ("packed", "lists"))
    assert packed["train"].to_list() == plain["train"].to_list()


def test_damaged_bytes_are_named(packed_folder: Path, tmp_path: Path) -> None:
    for change, reason in (
        (lambda data: data[:-1], r"bytes of packed codes for \d+ samples, expected"),
        (lambda data: b"\xff" * len(data), "a code is 63: expected codes below 60"),
    ):
        table = load_dataset(str(packed_folder))["train"].data.table.combine_chunks()
        codes = [change(x) if i == 1 else x for i, x in enumerate(table["codes"].to_pylist())]
        at = table.schema.get_field_index("codes")
        table = table.set_column(at, table.schema.field("codes"), pa.array(codes, pa.binary()))
        pq.write_table(table, tmp_path / "train.parquet")
        with pytest.raises(ValueError, match=f"split 'train', row 1, column 'codes': .*{reason}"):
            load_tokens(tmp_path / "train.parquet")


def test_packed_codes_in_arrow_are_refused(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="codes packed with format arrow"):
        tokenize_corpus(tiny_corpus, tiny_codec, tmp_path / "a", codes="packed", format="arrow")
    with pytest.raises(ValueError, match="codes 'zip' is unknown; use lists or packed"):
        tokenize_corpus(tiny_corpus, tiny_codec, tmp_path / "a", codes="zip")
