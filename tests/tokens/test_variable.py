"""Token datasets of a variable bitrate: rows whose frames have lists of unequal length."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, load_dataset

from makers.codecs import make_stft_codec, make_variable, save_codec
from makers.hub import local_hub
from tokgen.codec.base import Codec
from tokgen.codec.depth import Rate, mean_kbps, scale_for
from tokgen.codec.spec import DEPTH
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.storage import Storage
from tokgen.tokens.columns import codes_of, depths_of, sides_of, token_features
from tokgen.tokens.dataset import concatenate_tokens, load_tokens
from tokgen.tokens.engines.job import Job
from tokgen.tokens.provenance import Provenance, add_provenance, provenance_of
from tokgen.tokens.report import TokenizeReport
from tokgen.tokens.shards import ShardStore
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.lookup import load_codec

K = 4


@pytest.fixture(scope="module")
def provenance() -> Provenance:
    spec = make_variable().spec
    numbers = spec.sample_rate, spec.hop_length, spec.n_codebooks, spec.codebook_size
    return Provenance(spec.as_dict(), *numbers, None, "0", "corpus", "0" * 64, level=1.5)


@pytest.fixture
def rows(provenance: Provenance) -> Dataset:
    features = add_provenance(token_features(K, {}, variable=True), provenance)
    codes = [[[1, 2], [3]], [[4, 5, 6, 7], [8, 9, 10], [11]]]
    kept = type(features)({name: features[name] for name in ("codes", "n_samples")})
    return Dataset.from_dict({"codes": codes, "n_samples": [640, 960]}, features=kept)


def test_codes_past_the_depth_are_zero(rows: Dataset) -> None:
    for found, order in ((rows, [0, 1]), (rows.select([1, 0]), [1, 0]), (rows.select([1]), [1])):
        depths = depths_of(found)
        assert depths is not None
        codes = codes_of(found)
        expected = [[[1, 3], [2, 0], [0, 0], [0, 0]]]
        expected += [[[4, 8, 11], [5, 9, 0], [6, 10, 0], [7, 0, 0]]]
        for c, d, i in zip(codes, depths, order, strict=True):
            assert c.dtype == d.dtype == torch.int64
            assert c.tolist() == expected[i] and d.tolist() == [[2, 1], [4, 3, 1]][i]
    assert codes_of(rows.with_format("numpy"))[0].tolist() == expected[0]


def test_a_depth_is_side_information(rows: Dataset, provenance: Provenance) -> None:
    for names in ((), (DEPTH,)):
        sides = sides_of(rows, names)
        assert sides is not None and [side[DEPTH].tolist() for side in sides] == [[2, 1], [4, 3, 1]]
        assert sides[0][DEPTH].dtype == torch.float32
    constant = replace(provenance, level=None)
    features = add_provenance(token_features(K, {}), constant)
    codes = np.zeros((1, 5, K), np.uint16).tolist()
    plain = Dataset.from_dict(
        {"codes": codes}, features=type(features)({"codes": features["codes"]})
    )
    assert depths_of(plain) is None and sides_of(plain, ()) is None
    full = sides_of(plain, (DEPTH,))
    assert full is not None and full[0][DEPTH].tolist() == [K] * 5


def test_the_rate_is_in_the_provenance(rows: Dataset, provenance: Provenance) -> None:
    found = provenance_of(rows)
    assert found.level == 1.5 and found.rate is not None and found.rate.n_codebooks == K
    other = replace(provenance, level=None, bitrate=2.5)
    assert provenance.differences(other) == ["rate: level 1.5 → 2.5 kbps"]
    constant = replace(provenance, level=None)
    assert constant.differences(provenance) == ["rate: all levels → level 1.5"]
    assert not {"level", "bitrate"} & set(constant.as_dict())


@pytest.mark.parametrize(
    "change", [{"level": "1"}, {"level": 0}, {"level": True}, {"bitrate": 2.0}], ids=str
)
def test_a_wrong_rate_is_no_provenance(provenance: Provenance, change: dict) -> None:
    with pytest.raises(ValueError, match="no readable provenance"):
        Provenance.from_json(replace(provenance, **change).to_json(), "rows")


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_variable(None)


@pytest.fixture(scope="module")
def corpus(tiny_corpus: Path) -> Corpus:
    return open_corpus(tiny_corpus)


def rows_of(folder: Path) -> dict[str, list[dict]]:
    return {split: list(part) for split, part in load_tokens(folder).splits.items()}


def depths_in(folder: Path) -> list[torch.Tensor]:
    """Return the depth of all rows of a token dataset."""
    splits = load_tokens(folder).splits.values()
    return [depth for part in splits for depth in depths_of(part) or []]


def run(corpus: Corpus, codec: Codec | Path, out: Path, **settings) -> TokenizeReport:
    settings = {"shard_rows": 3, "workers": 1, "progress": False, "conditioning": None} | settings
    return tokenize_corpus(corpus, codec, out, **settings)


@pytest.mark.parametrize("codes", ["lists", "packed"])
@pytest.mark.parametrize("rate", [{"level": 1.2}, {"bitrate": 0.6}], ids=str)
def test_rows_are_what_the_codec_encodes(
    corpus: Corpus, codec: Codec, tmp_path: Path, rate: dict, codes: str
) -> None:
    report = run(corpus, codec, tmp_path / "out", codes=codes, **rate)
    tokens, view = load_tokens(tmp_path / "out"), codec.with_rate(**rate)
    loaded = {entry.id: corpus.load(entry, 16000).waveform for entry in corpus.entries}
    depths, n_rows = [], 0
    for split, rows in tokens.splits.items():
        sides = sides_of(rows, view.side_names)
        assert sides is not None and "side_depth" not in rows.column_names
        for i, row in enumerate(rows):
            expected = view.encode_with_side(loaded[row["id"]][None])
            assert tokens.codes(split, i).equal(expected.codes)
            assert sides[i][DEPTH].equal(expected.side[DEPTH][0])
            audio = view.decode(expected.codes, row["n_samples"], expected.side)
            assert tokens.decode(codec, split, i).equal(audio)  # a codec of all levels
            assert tokens.decode(view, split, i).equal(audio)
            depths.append(sides[i][DEPTH].long())
            n_rows += 1
    assert report.n_rows == n_rows and len(set(torch.cat(depths).tolist())) > 2
    frames = sum(map(len, depths))
    kbps = sum(mean_kbps(d, codec.spec) * len(d) for d in depths) / frames
    assert report.kbps == pytest.approx(kbps) and f"at {kbps:.2f} kbps" in str(report)
    assert run(corpus, view, tmp_path / "out", codes=codes).kbps == pytest.approx(kbps)
    card = (tmp_path / "out" / "README.md").read_text()
    [(name, value)] = rate.items()
    assert f"| bitrate | {kbps:.2f} kbps on average, with the bits of the depth |" in card
    assert f"| depth | {torch.cat(depths).float().mean():.2f} levels per frame" in card
    assert f" --{name} {value:g} " in card and "uint16 [T, 1 to 4]" in card


def test_a_row_has_the_same_codes_in_any_batch_format_and_process(
    corpus: Corpus, codec: Codec, tmp_path: Path
) -> None:
    folder = save_codec(codec, tmp_path / "zoo" / "variable")
    expected = None
    for i, (loaded, settings) in enumerate(
        [
            (codec, {}),
            (codec, {"format": "arrow", "batch_seconds": 100.0, "codes": "lists"}),
            (folder, {"workers": 2, "batch_seconds": 1.0, "codes": "packed"}),
            (load_codec(folder), {"workers": 2, "shard_rows": 4}),
        ]
    ):
        run(corpus, loaded, tmp_path / f"{i}", bitrate=0.7, **settings)
        rows = rows_of(tmp_path / f"{i}")
        assert rows == (expected or rows)
        expected = rows
    named = load_codec(f"{folder}:0.7")
    run(corpus, named, tmp_path / "named", workers=2)
    assert rows_of(tmp_path / "named") == expected
    card = (tmp_path / "named" / "README.md").read_text()
    assert "variable:0.7 --conditioning" in card and "| variable bitrate | 0.7 kbps |" in card
    assert run(corpus, load_codec(folder).with_rate(bitrate=0.7), tmp_path / "1").kbps is not None


def test_long_audio_and_few_levels(
    corpus: Corpus, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, codec, tmp_path / "short", level=1.5, n_codebooks=3)
    monkeypatch.setattr("tokgen.tokens.engines.job.LONG_SECONDS", 0.3)
    run(corpus, codec, tmp_path / "long", level=1.5, n_codebooks=3)
    assert rows_of(tmp_path / "long") == rows_of(tmp_path / "short")
    tokens = load_tokens(tmp_path / "long")
    deepest = max(int(depth.max()) for depth in depths_in(tmp_path / "long"))
    assert deepest == 3 == tokens.codes("train", 0).shape[1]


def test_another_rate_does_not_resume(
    corpus: Corpus, codec: Codec, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run(corpus, codec, tmp_path / "out", level=1.0)
    for settings, change in (
        ({"level": 1.5}, "rate: level 1 → level 1.5"),
        ({"bitrate": 0.6}, "rate: level 1 → 0.6 kbps"),
        ({}, "rate: level 1 → all levels"),
    ):
        with pytest.raises(ValueError, match=rf"these changed \(old → new\): {change}\."):
            run(corpus, codec, tmp_path / "out", **settings)
    assert run(corpus, codec, tmp_path / "out", level=1.0).resumed_rows == len(corpus)
    run(corpus, codec, tmp_path / "other", level=1.5)
    both = [load_tokens(tmp_path / name) for name in ("out", "other")]
    with pytest.raises(ValueError, match="differ in levels, rate, conditioning or precision"):
        concatenate_tokens(both)
    assert str(both[0]).endswith("50 frames/s, level 1)")
    assert len(concatenate_tokens([both[0], both[0]]).splits["train"]) == 2 * len(
        both[0].splits["train"]
    )


def test_unfinished_work_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    folder = save_codec(make_variable(None), tmp_path / "variable")

    class Interrupted(type(load_codec(folder))):  # type: ignore[misc]
        left = 2

        def encode_batch_with_side(self, waveforms):
            if not self.left:
                raise KeyboardInterrupt
            type(self).left -= 1
            return super().encode_batch_with_side(waveforms)

    broken = load_codec(folder)
    broken.__class__ = Interrupted
    with pytest.raises(KeyboardInterrupt):
        run(corpus, broken, tmp_path / "out", level=1.0)
    again = run(corpus, load_codec(folder), tmp_path / "out", level=1.0)
    whole = run(corpus, load_codec(folder), tmp_path / "whole", level=1.0)
    assert again.resumed_rows > 0 and again.kbps == whole.kbps
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")


def test_another_process_loads_the_rate(
    corpus: Corpus, codec: Codec, provenance: Provenance, tmp_path: Path
) -> None:
    loaded = load_codec(save_codec(codec, tmp_path / "variable")).with_rate(level=0.8)
    store = ShardStore(Storage(tmp_path / "out"), provenance, {"units": 1})
    more = {"settings": None, "batch_seconds": 9.0, "precision": "float32"}
    job = Job(corpus, loaded, store, n_codebooks=3, **more)
    again = pickle.loads(pickle.dumps(job))
    assert not isinstance(again.codec, Codec)
    again.load_codec("cpu")
    assert again.codec.rate == job.codec.rate == Rate(level=0.8, n_codebooks=3)
    assert again.codec.side_names == (DEPTH,)


def test_it_is_pushed_and_loaded(
    corpus: Corpus, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(corpus, codec, tmp_path / "out", level=1.1, codes="packed")
    tokens = load_tokens(tmp_path / "out")
    with local_hub(tmp_path / "hf", monkeypatch) as hub:
        tokens.push_to_hub("me/tokens")
        again = load_tokens("me/tokens")
        assert again.provenance == tokens.provenance
        for split, rows in tokens.splits.items():
            assert again.splits[split].to_list() == rows.to_list()
        card = hub.files("datasets", "me/tokens")["README.md"]
        assert f"| bitrate | {report.kbps:.2f} kbps on average".encode() in card


def size_of(folder: Path) -> int:
    """Return the bytes of the column "codes", compressed."""
    total = 0
    for file in (folder / "data").iterdir():
        about = pq.read_metadata(file)
        for group in range(about.num_row_groups):
            for i in range(about.num_columns):
                column = about.row_group(group).column(i)
                if column.path_in_schema.split(".")[0] == "codes":
                    total += column.total_compressed_size
    return total


@pytest.mark.parametrize("codes", ["lists", "packed"])
def test_levels_past_the_depth_cost_no_bytes(corpus: Corpus, tmp_path: Path, codes: str) -> None:
    codec = make_variable(None, n_codebooks=8, codebook_size=1024)
    waves = [corpus.load(entry, 16000).waveform[None] for entry in corpus.entries]
    importance = [codec.encode_with_importance(w).side["importance"][0] for w in waves]
    level = scale_for(torch.cat(importance), 3, 8)
    run(corpus, codec, tmp_path / "variable", level=level, codes=codes, shard_rows=64)
    run(corpus, codec, tmp_path / "constant", codes=codes, shard_rows=64)
    depths = [
        d
        for part in load_tokens(tmp_path / "variable").splits.values()
        for d in depths_of(part) or []
    ]
    assert torch.cat(depths).double().mean() == pytest.approx(3, abs=0.02)
    assert size_of(tmp_path / "variable") < 0.6 * size_of(tmp_path / "constant")


def test_wrong_rates(corpus: Corpus, codec: Codec, tmp_path: Path) -> None:
    for settings, message in (
        ({"level": 1.0, "bitrate": 2.0}, "level 1 and bitrate 2 are both given: give one"),
        ({"level": 0.0}, "level is 0, but must be above 0"),
        ({"bitrate": 9.0}, r"bitrate = 9 kbps: stft-variable reaches 0.295 to 1.18 kbps with n_c"),
        ({"bitrate": 0.9, "n_codebooks": 2}, "reaches 0.295 to 0.591 kbps with n_codebooks = 2;"),
    ):
        with pytest.raises(ValueError, match=message):
            run(corpus, codec, tmp_path / "out", **settings)
    with pytest.raises(ValueError, match=r"level = 1.0: tiny has no variable bitrate"):
        run(corpus, make_stft_codec(name="tiny"), tmp_path / "out", level=1.0)
    assert not list(tmp_path.iterdir())


def test_audio_that_cannot_have_a_bitrate_is_rejected(
    corpus: Corpus, codec: Codec, tmp_path: Path
) -> None:
    lowest = codec.spec.frame_rate * np.log2(codec.spec.codebook_size) / 1000
    report = run(corpus, codec, tmp_path / "out", bitrate=lowest * 1.06)
    assert 0 < report.n_rejected < len(corpus)
    assert all("reaches" in rejection.reason for rejection in report.rejections)
    tokens = load_tokens(tmp_path / "out")
    assert sum(map(len, tokens.splits.values())) == report.n_rows
    alone = run(corpus, codec, tmp_path / "alone", bitrate=lowest * 1.06, batch_seconds=0.1)
    assert alone.n_rejected == report.n_rejected


def test_damaged_rows_are_named(corpus: Corpus, codec: Codec, tmp_path: Path) -> None:
    run(corpus, codec, tmp_path / "out", level=1.0)
    rows = load_dataset(str(tmp_path / "out"))["train"]
    shutil.rmtree(tmp_path / "out")
    at = next(i for i, d in enumerate(depths_of(rows) or []) if 4 in d and d[0] < 4)
    first = len(rows[at]["codes"][0])

    def change(row: dict, i: int, frame: list[int]) -> dict:
        return {"codes": [frame, *row["codes"][1:]]} if i == at else row

    for frame, message in (
        ([], "0 values at frame 0, expected 1 to 4"),
        ([1] * 5, "5 values at frame 0, expected 1 to 4"),
        ([1] * (first - 1) + [60], f"code 60 at frame 0, level {first - 1}, must be in 0..59"),
    ):
        damaged = rows.map(change, with_indices=True, fn_kwargs={"frame": frame})
        with pytest.raises(ValueError, match=rf"row {at}, column 'codes': {message}"):
            load_tokens(damaged)
    fixed = add_provenance(token_features(K, {}), provenance_of(rows))["codes"]
    same = rows.map(lambda row: {"codes": [[0] * K for _ in row["codes"]]})
    with pytest.raises(ValueError, match="4 values in every frame, but the provenance says level"):
        load_tokens(same.cast_column("codes", fixed))
