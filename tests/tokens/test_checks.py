"""Rows that contradict their provenance are refused when a token dataset is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value

from makers.codecs import with_noise
from makers.tokens import rows_of
from tokgen.corpus.listed import open_corpus
from tokgen.modelling.masked import MaskedTransformer
from tokgen.tokens.cache import cached_tokens
from tokgen.tokens.dataset import TokenDataset, check_codec, load_tokens
from tokgen.tokens.provenance import Provenance, attach_provenance
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec


@pytest.fixture(scope="module")
def tokens(token_folder: Path) -> TokenDataset:
    return load_tokens(token_folder)


def set_code(row: dict, value: int | None) -> None:
    row["codes"][2][3] = value


def cut(row: dict, column: str) -> None:
    row[column] = row[column][:-1]


def cut_frame(row: dict, column: str) -> None:
    row[column][1] = row[column][1][:-1]


CHANGES: dict[str, tuple[Callable[[dict], None], str]] = {
    "too large": (lambda row: set_code(row, 60), "code 60 at frame 2, level 3, must be in 0..59"),
    "negative": (lambda row: set_code(row, -1), "code -1 at frame 2, level 3, must be in 0..59"),
    "missing code": (lambda row: set_code(row, None), "'codes': a missing value at frame 2"),
    "ragged": (lambda row: cut_frame(row, "codes"), "'codes': 3 values at frame 1, expected 4"),
    "short": (lambda row: cut(row, "codes"), r"'codes': \d+ frames for \d+ samples, expected \d+"),
    "no codes": (lambda row: row.update(codes=None), "'codes': no value"),
    "no length": (lambda row: row.update(n_samples=None), "'n_samples': no value"),
    "zero length": (lambda row: row.update(n_samples=0), "'n_samples': 0, must be at least 1"),
    "mfcc short": (lambda row: cut(row, "mfcc"), r"'mfcc': \d+ frames, but \d+ frames of codes"),
    "mfcc ragged": (lambda row: cut_frame(row, "mfcc"), "'mfcc': 29 values at frame 1, expected"),
    "mfcc missing": (lambda row: row.update(mfcc=None), "'mfcc': no value"),
}


def changed(tokens: TokenDataset, change: Callable[[dict], None]) -> Dataset:
    """Return the train split with a change in row 5, its codes of any size and sign."""
    rows = tokens.splits["train"]
    content = rows.to_list()
    change(content[5])
    features = rows.features.copy()
    features["codes"] = List(List(Value("int32")))
    features["mfcc"] = List(List(Value("float16")))
    return attach_provenance(Dataset.from_list(content, features=features), tokens.provenance)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("format", ["parquet", "arrow", "in memory"])
def test_rows_are_refused_by_row_and_column(
    tokens: TokenDataset, tmp_path: Path, name: str, format: str
) -> None:
    change, reason = CHANGES[name]
    rows = changed(tokens, change)
    source: Path | Dataset = tmp_path / "x"
    if format == "parquet":
        rows.to_parquet(tmp_path / "x" / "data" / "train-00000-of-00001.parquet")
    elif format == "arrow":
        DatasetDict(train=rows).save_to_disk(tmp_path / "x")
    else:
        source = rows
    with pytest.raises(ValueError, match=rf"split 'train', row 5, column .*{reason}.*tokenize"):
        load_tokens(source)


def test_rows_that_are_not_selected_are_not_checked(tokens: TokenDataset) -> None:
    rows = changed(tokens, CHANGES["too large"][0])
    assert len(load_tokens(rows.select([0, 4])).splits["train"]) == 2
    with pytest.raises(ValueError, match="row 1, column 'codes'"):
        load_tokens(rows.select([0, 5]))


def test_faults_in_later_batches_keep_their_row(tokens: TokenDataset, monkeypatch) -> None:
    monkeypatch.setattr("tokgen.tokens.checks.ROWS_AT_ONCE", 2)
    with pytest.raises(ValueError, match="row 5, column 'codes': code 60"):
        load_tokens(changed(tokens, CHANGES["too large"][0]))


@pytest.mark.parametrize(
    ("column", "kind", "reason"),
    [
        ("codes", List(Value("uint16")), "list<.*uint16.*>, not lists of lists of integers"),
        ("codes", List(List(Value("float32"))), "float.*, not lists of lists of integers"),
        ("codes", List(List(Value("uint16"), length=3)), "3 values per frame, but .* says 4"),
        ("mfcc", List(List(Value("float16"), length=2)), "2 values per frame, but .* says 30"),
        ("n_samples", Value("string"), "string, not integers"),
        ("id", List(Value("string")), "list<.*string.*>, not text"),
    ],
)
def test_columns_of_another_type(tokens: TokenDataset, column: str, kind, reason: str) -> None:
    features = Features({**tokens.splits["train"].features, column: kind})
    rows = Dataset(pa.Table.from_pylist([], features.arrow_schema))
    rows.info.features = features
    rows = attach_provenance(rows, tokens.provenance) if column == "codes" else rows
    with pytest.raises(ValueError, match=rf"split 'train', column '{column}': .*{reason}"):
        load_tokens(rows)


def test_a_dataset_without_codes(tokens: TokenDataset) -> None:
    rows = tokens.splits["train"]
    with pytest.raises(ValueError, match=r"has no column 'n_samples'"):
        load_tokens(rows.remove_columns("n_samples"))
    with pytest.raises(ValueError, match=r"has no column 'codes'"):
        load_tokens(rows.rename_column("codes", "tokens"))


def test_codes_of_records(tokens: TokenDataset) -> None:
    rows = Dataset.from_list([{"codes": [{"a": 1}], "n_samples": 3}])
    with pytest.raises(ValueError, match=r"column 'codes': .*struct.*, not lists of lists of int"):
        load_tokens(rows)


def test_an_old_dataset_without_codes(tmp_path: Path) -> None:
    old = Path(__file__).parent / "old" / "parquet"
    shutil.copytree(old, tmp_path / "x")
    for file in (tmp_path / "x").glob("data/*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.rename_columns({"codes": "xodes"}), file)
    with pytest.raises(ValueError, match=r"/x, split 'test', has no column 'codes'"):
        load_tokens(tmp_path / "x")


def test_damaged_offsets_of_a_saved_dataset(tokens: TokenDataset, tmp_path: Path) -> None:
    """Offsets that lead out of the file would end the process."""
    DatasetDict(train=tokens.splits["train"]).save_to_disk(tmp_path / "x")
    [file] = tmp_path.glob("x/train/*.arrow")
    with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
        offsets = stream.read_all()["codes"].chunk(0).buffers()[1].to_pybytes()
    data = file.read_bytes()
    file.write_bytes(data.replace(offsets[:20], offsets[:16] + b"\xff\xff\xff\x6f", 1))
    with pytest.raises(ValueError, match=r"split 'train': rows 0 to \d+ are damaged"):
        load_tokens(tmp_path / "x")


# -- provenance ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"hop_length": 160}, "hop_length = 160, but its codec has 320"),
        ({"sample_rate": 8000}, "sample_rate = 8000, but its codec has 16000"),
        ({"codebook_size": 63}, "codebook_size = 63, but its codec has 60"),
        ({"n_codebooks": 10**400}, "n_codebooks = 1000.*…: must be an integer up to 65536"),
        ({"sample_rate": 10**400}, "sample_rate = 1000.*…: must be an integer up to 10000000"),
        ({"sample_rate": 16000.0}, "sample_rate = 16000.0: must be an integer"),
        ({"codebook_size": float("inf")}, "codebook_size = inf: must be an integer"),
        ({"codec": "x"}, "codec = x: of another type"),
        ({"conditioning": 3.5}, "conditioning = 3.5: of another type"),
        ({"side_names": {}}, "side_names = {}: of another type"),
    ],
)
def test_provenance_that_contradicts_itself(tokens: TokenDataset, value: dict, reason: str) -> None:
    text = json.dumps({**tokens.provenance.as_dict(), **value})
    with pytest.raises(ValueError, match=rf"x has no readable provenance \({reason}"):
        Provenance.from_json(text, "x")


@pytest.mark.parametrize(
    "value",
    [
        {"n_fft": 10**300},
        {"n_fft": "1024"},
        {"n_mels": 1e9},
        {"f_max": "x"},
        {"f_min": float("nan")},
        {"sample_rate": 8000},
        {"chunk_length": []},
    ],
)
def test_conditioning_of_wrong_types(tokens: TokenDataset, value: dict) -> None:
    about = tokens.provenance.as_dict()
    about["conditioning"] = {**about["conditioning"], **value}
    with pytest.raises(ValueError, match="x has no readable provenance"):
        Provenance.from_json(json.dumps(about), "x")


def test_long_values_are_cut_in_messages(tokens: TokenDataset) -> None:
    text = json.dumps({**tokens.provenance.as_dict(), "n_codebooks": "9\n" * 5000})
    with pytest.raises(ValueError, match="no readable provenance") as found:
        Provenance.from_json(text, "x")
    assert len(str(found.value)) < 500 and "\n" not in str(found.value)


def test_provenance_beside_the_rows_that_contradicts_them(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    tokenize_corpus(tiny_corpus, tiny_codec, out, workers=1, progress=False)
    about = json.loads((out / "provenance.json").read_text())
    codec = {**about["codec"], "weight_hash": "0" * 64, "encoder_hash": "0" * 64}
    for value, reason in (
        ({"n_codebooks": 3}, "n_codebooks: 3 → 4"),
        ({"precision": "x" * 9999}, "precision: x{60}… → float32"),
        ({"codec": codec}, "codec 'tiny': encoder 000000000000 → encoder "),
    ):
        (out / "provenance.json").write_text(json.dumps({**about, **value}))
        with pytest.raises(ValueError, match=rf"provenance.json contradicts the rows.*{reason}"):
            load_tokens(out)
    (out / "provenance.json").write_text(json.dumps({**about, "corpus": "renamed"}))
    assert len(rows_of(out)) == 3


def test_a_codec_with_another_decoder_decodes_the_rows(
    tokens: TokenDataset, tiny_codec: StftCodec, tiny_corpus: Path, tmp_path: Path
) -> None:
    tuned = with_noise(tiny_codec, "decoder")
    codes, n_samples = tokens.codes("train", 0), tokens.splits["train"][0]["n_samples"]
    decoded = tokens.decode(tuned, "train", 0)
    assert decoded.equal(tuned.decode(codes, n_samples))
    assert not decoded.equal(tokens.decode(tiny_codec, "train", 0))
    model = MaskedTransformer.for_codec(tiny_codec, dim=32, depth=1, heads=2, dim_head=16)
    model.check_codec(tuned.spec)

    about = Provenance.from_json(json.dumps(tokens.provenance.as_dict()), "x")
    assert about.codec["encoder_hash"] == tuned.spec.encoder_hash
    assert about.codec["weight_hash"] == tiny_codec.spec.weight_hash != tuned.spec.weight_hash
    cached = [cached_tokens(open_corpus(tiny_corpus), c, tmp_path) for c in (tiny_codec, tuned)]
    assert cached[0].source == cached[1].source  # was not encoded again


@pytest.mark.parametrize("part", ["encoder", "quantizer"])
def test_a_codec_with_another_encoder_or_quantizer_is_refused(
    part: str, tokens: TokenDataset, tiny_codec: StftCodec
) -> None:
    other = with_noise(tiny_codec, part)
    message = r"codec 'tiny' \(encoder \w{12}\), not .*'noisy' \(encoder \w{12}\)"
    with pytest.raises(ValueError, match=f"{message}: tokenize again, or load 'tiny'"):
        tokens.decode(other, "train", 0)
    model = MaskedTransformer.for_codec(tiny_codec, dim=32, depth=1, heads=2, dim_head=16)
    with pytest.raises(ValueError, match=message):
        model.check_codec(other.spec)


def test_a_provenance_of_older_versions_is_compared_by_all_weights(
    tokens: TokenDataset, tiny_codec: StftCodec
) -> None:
    about = tokens.provenance.as_dict()
    del about["codec"]["encoder_hash"]
    old = Provenance.from_json(json.dumps(about), "x")
    check_codec(old, tiny_codec.spec)
    assert old.makes_equal_rows(tokens.provenance) and tokens.provenance.makes_equal_rows(old)
    with pytest.raises(ValueError, match=r"codec 'tiny' \(weights \w+\), not by 'noisy'"):
        check_codec(old, with_noise(tiny_codec, "decoder").spec)


def test_numbers_of_another_codec_with_the_same_hash(tokens: TokenDataset) -> None:
    about = tokens.provenance.as_dict()
    about["codec"] |= {"hop_length": 160}
    about |= {"hop_length": 160, "conditioning": None}
    other = Provenance.from_json(json.dumps(about), "x")
    with pytest.raises(ValueError, match="says hop_length = 160, but codec 'tiny' has 320"):
        check_codec(other, tokens.provenance.spec)
