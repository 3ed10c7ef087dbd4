"""Exports of token datasets come back exactly, in every layout and format."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from makers.codecs import make_variable
from tokgen.cli.main import main
from tokgen.tokens.columns import codes_of, depths_of, token_features
from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.tokens.export.reading import import_tokens, open_export, read_rows
from tokgen.tokens.export.sequences import Layout
from tokgen.tokens.export.settings import FORMATS, LAYOUTS
from tokgen.tokens.export.writing import export_tokens
from tokgen.tokens.provenance import Provenance, add_provenance

COLUMNS = ["id", "codes", "n_samples", "text", "speaker"]


@pytest.fixture(scope="module")
def tokens(token_folder: Path) -> TokenDataset:
    return load_tokens(token_folder)


@pytest.fixture(scope="module")
def variable() -> TokenDataset:
    """Two rows whose frames differ in depth, with side information."""
    spec = make_variable().spec
    numbers = spec.sample_rate, spec.hop_length, spec.n_codebooks, spec.codebook_size
    about = Provenance(
        spec.as_dict(), *numbers, None, "0", "corpus", "0" * 64, ["speaker"], level=1.5
    )
    features = add_provenance(token_features(4, {}, ["speaker"], variable=True), about)
    rows = {
        "id": ["a/../b", "ü\n"], "codes": [[[1, 2], [3]], [[4, 5, 6, 7], [8, 9, 10], [11]]],
        "n_samples": [640, 960], "text": [None, "two"], "speaker": ["x", None],
        "side_speaker": [[0.1, -2.5], [1e-30]],
    }  # fmt: skip
    return load_tokens(DatasetDict(train=Dataset.from_dict(rows, features=features)))


def assert_equal(found: TokenDataset, tokens: TokenDataset) -> None:
    assert list(found.splits) == list(tokens.splits)
    sides = [name for name in tokens.splits["train"].column_names if name.startswith("side_")]
    for split, rows in tokens.splits.items():
        for name in [*COLUMNS, *sides]:
            assert list(found.splits[split][name]) == list(rows[name])
    assert found.provenance.codec == tokens.provenance.codec
    assert found.provenance.conditioning is None


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dataset_comes_back(tokens: TokenDataset, tmp_path: Path, layout: str, form: str) -> None:
    made = export_tokens(tokens, tmp_path / "out", layout=layout, format=form, shard_rows=2)
    assert made.rows == {split: len(rows) for split, rows in tokens.splits.items()}
    assert_equal(import_tokens(tmp_path / "out"), tokens)
    codes = codes_of(tokens.splits["train"])
    size = tokens.provenance.codebook_size
    for row, wanted in zip(read_rows(tmp_path / "out", "train"), codes, strict=True):
        if layout == "delay":
            assert row.tokens[1, 1:4].tolist() == wanted[1, :3].tolist()
            assert row.tokens[1, 0] == size == made.fill
        else:
            raised = size if layout == "offsets" else 0
            assert row.tokens[:2].tolist() == [int(wanted[0, 0]), int(wanted[1, 0]) + raised]
    for split, n in made.n_tokens.items():
        assert n == sum(row.tokens.size for row in read_rows(tmp_path / "out", split))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("form", FORMATS)
def test_frames_of_unequal_depth_come_back(variable, tmp_path: Path, form: str) -> None:
    made = export_tokens(variable, tmp_path / "out", layout="offsets", format=form)
    assert made.n_tokens == {"train": 11}
    found = import_tokens(tmp_path / "out")
    assert_equal(found, variable)
    assert [d.tolist() for d in depths_of(found.splits["train"])] == [[2, 1], [4, 3, 1]]
    for layout in ("flat", "delay"):
        with pytest.raises(ValueError, match=f"layout {layout} cannot hold .* use layout offsets"):
            export_tokens(variable, tmp_path / "other", layout=layout, format=form)
    assert not (tmp_path / "other").exists()


@given(st.integers(1, 5), st.integers(1, 9), st.integers(2, 70000), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_every_layout_of_any_codes(k: int, n_frames: int, size: int, seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    codes = torch.randint(min(size, 65536), (k, n_frames), generator=noise)
    for name in LAYOUTS:
        layout = Layout(name, k, size)
        values = layout.lay_out(codes)
        assert layout.codes(values) == codes.T.tolist()
        assert values.max() < layout.vocabulary_size
    depth = torch.randint(1, k + 1, (n_frames,), generator=noise)
    layout = Layout("offsets", k, size, variable=True)
    frames = [codes[:d, t].tolist() for t, d in enumerate(depth.tolist())]
    assert layout.codes(layout.lay_out(codes, depth)) == frames


def test_files_hold_what_other_tools_expect(tokens: TokenDataset, tmp_path: Path) -> None:
    codes = codes_of(tokens.splits["train"])[0]
    row = tokens.splits["train"][0]
    for form in FORMATS:
        export_tokens(tokens, tmp_path / form, format=form, shard_rows=2)
    line = json.loads((tmp_path / "jsonl/train.jsonl").read_text().splitlines()[0])
    assert line["tokens"] == codes.T.flatten().tolist()
    assert (line["id"], line["text"], line["speaker"]) == (row["id"], row["text"], row["speaker"])
    shards = sorted((tmp_path / "webdataset").glob("train-*.tar"))
    assert len(shards) == -(-len(tokens.splits["train"]) // 2)
    with tarfile.open(shards[0]) as archive:
        names = archive.getnames()
        assert names == [
            f"train-00000000{i}.{kind}" for i in (0, 1) for kind in ("json", "tokens.npy")
        ]
        data = archive.extractfile(names[1])
        assert np.load(io.BytesIO(data.read())).tolist() == codes.T.flatten().tolist()
    with gzip.open(tmp_path / "lhotse/train.cuts.jsonl.gz", "rt") as file:
        cut = json.loads(file.readline())
    assert cut["type"] == "MonoCut" and cut["duration"] == row["n_samples"] / 16000
    array = cut["custom"]["tokens"]
    found = np.load(Path(array["storage_path"]) / array["storage_key"])
    assert found.tolist() == codes.T.flatten().tolist() and array["shape"] == list(found.shape)


def test_lhotse_reads_its_manifest(tokens: TokenDataset, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    export_tokens(tokens, tmp_path / "out", layout="delay", format="lhotse")
    cuts = list(lhotse.CutSet.from_file(tmp_path / "out/train.cuts.jsonl.gz"))
    rows = tokens.splits["train"]
    assert [cut.id for cut in cuts] == list(rows["id"])
    assert [cut.supervisions[0].text for cut in cuts] == list(rows["text"])
    wanted = [Layout.of("delay", tokens.provenance).lay_out(codes) for codes in codes_of(rows)]
    for cut, values in zip(cuts, wanted, strict=True):
        assert np.array_equal(cut.load_tokens(), values)


def test_an_export_is_replaced_only_on_request(tokens, tmp_path: Path, capsys) -> None:
    out, source = tmp_path / "out", tokens.source
    words = ["export-tokens", "--tokens", str(source), "--out", str(out)]
    assert main([*words, "--layout", "flat"]) == 0
    said = capsys.readouterr().out
    assert f"{out}: flat in jsonl, 60 values" in said and "train" in said
    before = (out / "train.jsonl").read_bytes()
    assert main([*words, "--layout", "delay"]) == 2
    assert "already exists: give another folder, or set --overwrite" in capsys.readouterr().err
    assert (out / "train.jsonl").read_bytes() == before
    assert main([*words, "--layout", "delay", "--format", "webdataset", "--overwrite"]) == 0
    assert open_export(out).format == "webdataset" and not (out / "train.jsonl").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    words[-1] = str(tmp_path / "mine")
    assert main([*words, "--overwrite"]) == 2
    assert "is no export of this command" in capsys.readouterr().err
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_an_interrupted_export_leaves_nothing_in_its_place(tokens, tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("tokgen.tokens.export.formats._npy", fail)
        with pytest.raises(OSError, match="disk is full"):
            export_tokens(tokens, tmp_path / "out", format="webdataset")
    assert not (tmp_path / "out").exists()
    export_tokens(tokens, tmp_path / "out", format="webdataset")
    assert_equal(import_tokens(tmp_path / "out"), tokens)


def test_damaged_exports_are_named(tokens, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"holds no export \(no export.json\)"):
        import_tokens(tmp_path)
    export_tokens(tokens, out, layout="offsets")
    with pytest.raises(ValueError, match="no split 'dev'"):
        list(read_rows(out, "dev"))
    lines = (out / "train.jsonl").read_text().splitlines(keepends=True)
    (out / "train.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=rf"has {len(lines) - 1} rows .*'train', not {len(lines)}"):
        import_tokens(out)
    (out / "train.jsonl").write_text("[]\n")
    with pytest.raises(ValueError, match=r"row 0 cannot be read \(line 1 is no JSON object\)"):
        import_tokens(out)
    first = json.loads(lines[0])
    for tokens_, message in (
        ([1, 2], "must be a multiple of 4"),
        ([0, 0, 0, 0], "value 0 at level 1"),
        ([999] * 4, r"tokens from 999 to 999: layout offsets has 0\.\.239"),
        ([], "tokens of shape"),
    ):
        changed = json.dumps(first | {"tokens": tokens_}) + "\n"
        (out / "train.jsonl").write_text("".join([changed, *lines[1:]]))
        with pytest.raises(ValueError, match=rf"row 0: .*{message}"):
            import_tokens(out)
    found = json.loads((out / "export.json").read_text())
    (out / "export.json").write_text(json.dumps(found | {"rows": {"../x": 1}}))
    with pytest.raises(ValueError, match="rows must be the number of utterances"):
        import_tokens(out)


def test_settings_are_checked_first(tmp_path: Path) -> None:
    for more, message in (
        ({"layout": "flatt"}, "layout 'flatt': known are flat, offsets, delay"),
        ({"format": "csv"}, "format 'csv': known are jsonl, webdataset, lhotse"),
        ({"shard_rows": 0}, "shard_rows is 0, but must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            export_tokens("no tokens", tmp_path / "out", **more)
