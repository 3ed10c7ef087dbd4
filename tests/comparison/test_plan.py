"""Tests of `compare_codecs`, the whole comparison in one call."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest

from makers.audio import make_tone
from makers.codecs import make_stft_codec, make_variable, save_codec
from tokgen.audio.files import write_audio
from tokgen.codec.depth import stream_bits
from tokgen.comparison.plan import compare_codecs
from tokgen.comparison.settings import (
    MAY_CHANGE,
    MAY_CHANGE_IN_TRAINING,
    ComparisonSettings,
    TelephoneSettings,
)
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.metrics.tables import Table
from tokgen.modelling.delay import DelayTransformer
from tokgen.modelling.loading import load_transformer
from tokgen.modelling.settings import ModelSettings
from tokgen.results import Result
from tokgen.tokens.columns import depths_of
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus

FEW = {
    "preset": ModelSettings(dim=32, depth=1, heads=2), "steps": 2, "batch_size": 2,
    "crop_seconds": 0.5, "mixed_precision": "no", "sampling": SamplingSettings(steps=(2, 1)),
    "metrics": ["pesq"], "drift_passes": 0, "n_saved": 1,
    "telephone": TelephoneSettings(rounds=0),
}  # fmt: skip


def test_a_small_folder_gets_a_test_split(tiny_codec, tmp_path) -> None:
    for i in range(4):
        write_audio(tmp_path / "few" / f"{i}.wav", make_tone(1.0, i), 16000)
    other = make_stft_codec(1, "other")
    table = compare_codecs([tiny_codec, other], tmp_path / "few", tmp_path / "run", **FEW)
    assert table.rows[0].values["pesq"].n == 1 and len(table.rows) == 5


def test_objects_and_names_give_one_table(
    tiny_codec, tiny_codec_folder, tiny_corpus, tmp_path
) -> None:
    other = make_stft_codec(1, "other")
    folder = save_codec(other, tmp_path / "other")
    run = tmp_path / "run"
    table = compare_codecs([tiny_codec, other], tiny_corpus, run, **FEW)
    assert isinstance(table, Table) and isinstance(table, Result)
    assert [row.name for row in table.rows][-2:] == ["tiny generated", "other generated"]
    assert table.to_dict()["rows"] == json.loads((run / "table.json").read_text())["rows"]
    assert (run / "cells" / "tiny-seed0" / "model" / "model.safetensors").is_file()
    assert len(list((run / "tokens").glob("*/dataset_dict.json"))) == 2
    again = compare_codecs([tiny_codec_folder, str(folder)], str(tiny_corpus), str(run), **FEW)
    assert again is not None
    pesq = [[row.values["pesq"] for row in found.rows] for found in (table, again)]
    assert pesq[0] == pesq[1]
    settings = json.loads((run / "settings.json").read_text())["settings"]
    assert settings["codec"] == [str(tiny_codec_folder), str(folder)]
    assert (settings["name"], settings["runs"]) == ("run", str(tmp_path))
    with pytest.raises(ValueError, match="holds a run with steps = 2, not 3"):
        compare_codecs([tiny_codec], tiny_corpus, run, **{**FEW, "steps": 3})


def test_existing_tokens_give_the_table_of_the_corpus(
    tiny_codec, tiny_corpus, tmp_path, monkeypatch
) -> None:
    other = make_stft_codec(1, "other")
    save_codec(tiny_codec, tmp_path / "zoo" / "tiny")
    save_codec(other, tmp_path / "zoo" / "other")
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path / "zoo"))
    first = compare_codecs([tiny_codec, other], tiny_corpus, tmp_path / "a", **FEW)
    made = sorted((tmp_path / "a" / "tokens").glob("*/dataset_dict.json"))
    tokens = sorted((path.parent for path in made), key=lambda path: "tiny" not in path.name)
    found = compare_codecs([], tiny_corpus, tmp_path / "b", tokens=tokens, **FEW)
    assert first is not None and found is not None
    for name in ("pesq", "accuracy"):
        rows = [{r.name: r.values.get(name) for r in table.rows} for table in (first, found)]
        assert rows[0] == rows[1]
    assert not (tmp_path / "b" / "tokens").exists()
    settings = json.loads((tmp_path / "b" / "settings.json").read_text())["settings"]
    assert settings["codec"] == [] and settings["tokens"] == [str(path) for path in tokens]


def test_tokens_without_a_test_split_are_split(tiny_codec, tmp_path) -> None:
    for i in range(6):
        write_audio(tmp_path / "c" / f"{i}.wav", make_tone(0.6, i), 16000)
    tokenize_corpus(tmp_path / "c", tiny_codec, tmp_path / "made", workers=1, progress=False)
    table = compare_codecs(
        [tiny_codec], tmp_path / "c", tmp_path / "run", tokens=[tmp_path / "made"],
        **{**FEW, "drift_passes": 2},
    )  # fmt: skip
    assert table is not None
    assert {row.values["pesq"].n for row in table.rows} == {1}
    other = tmp_path / "other"
    write_audio(tmp_path / "d" / "0.wav", make_tone(0.6, 9), 16000)
    for i in range(1, 3):
        write_audio(tmp_path / "d" / f"{i}.wav", make_tone(0.6, i), 16000)
    tokenize_corpus(tmp_path / "d", tiny_codec, other, workers=1, progress=False)
    again = make_stft_codec(0, "again")
    tokens = [tmp_path / "made", other]
    with pytest.raises(ValueError, match="compare codecs on tokens of one corpus"):
        compare_codecs([tiny_codec, again], tmp_path / "c", tmp_path / "x", tokens=tokens, **FEW)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "tokens without corpus: give the corpus that they were made of"),
        ({"corpus": "c", "test_corpus": "d"}, "test_corpus with tokens"),
        ({"corpus": "c", "codec": ["a", "b"]}, "2 codecs for 1 token datasets: give one for each"),
        ({"corpus": "c", "tokens": ["t", "t"]}, "give at least one, and each once"),
    ],
)
def test_data_that_do_not_belong_together_are_refused(more, message) -> None:
    with pytest.raises(ValueError, match=message):
        ComparisonSettings(**{"tokens": ["t"], **more})


def test_one_folder_of_tokens_is_refused(tiny_codec, tiny_corpus, tmp_path) -> None:
    with pytest.raises(TypeError, match=r"give a list of token datasets.*is `cache`"):
        compare_codecs([tiny_codec], tiny_corpus, tmp_path / "run", tokens="tokens", **FEW)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"n_codebooks": 2}, "have 2 levels, but tiny has 4: tokenize with all levels"),
        ({"conditioning": "mfcc"}, "have the conditioning mfcc, not none: set conditioning"),
    ],
)
def test_tokens_that_a_comparison_would_not_make_are_refused(
    tiny_codec, tiny_corpus, tmp_path, made, message
) -> None:
    """Their table would have the bitrate of all levels, and models with the conditioning."""
    options = {"conditioning": None, "workers": 1, "progress": False, **made}
    tokenize_corpus(tiny_corpus, tiny_codec, tmp_path / "made", **options)
    more = {**FEW, "conditioning": "none", "task": TaskSettings("continue", prompt_seconds=0.2)}
    tokens = [tmp_path / "made"]
    with pytest.raises(ValueError, match=message):
        compare_codecs([tiny_codec], tiny_corpus, tmp_path / "run", tokens=tokens, **more)


def test_an_autoregressive_model_has_a_row_beside_the_masked_one(
    tiny_codec, tiny_corpus, tmp_path
) -> None:
    run, more = tmp_path / "run", {**FEW, "generators": ["masked", "delay"]}
    table = compare_codecs([tiny_codec], tiny_corpus, run, **more)
    assert table is not None
    rows = {row.name: row for row in table.rows}
    assert list(rows)[-2:] == ["tiny generated", "tiny generated (delay)"]
    row = rows["tiny generated (delay)"]
    assert row.kind == "generated" and row.values["pesq"].n == 2
    assert "accuracy" in rows["tiny generated"].values and "accuracy" not in row.values
    found = {(d.row, d.than) for d in table.differences}
    assert ("tiny generated (delay)", "tiny generated") in found
    model = load_transformer(run / "cells" / "tiny-delay-seed0" / "model")
    assert isinstance(model, DelayTransformer)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"generators": ["delay", "delay"]}, "give each once, known are masked, delay"),
        ({"generators": ["delay"], "task": TaskSettings("infill")}, "it only continues"),
        ({"generators": ["delay"]}, "repeated editing needs a masked model"),
    ],
)
def test_kinds_of_models_are_checked(more, message) -> None:
    with pytest.raises(ValueError, match=message):
        ComparisonSettings(**more)


def test_a_variable_bitrate_is_compared_with_a_fixed_one(tiny_codec, tiny_corpus, tmp_path) -> None:
    """By a name with a suffix, and by an object at a level."""
    folder = save_codec(make_variable(None), tmp_path / "vary")
    codecs = [tiny_codec, f"{folder}:0.9", make_variable(1.0)]
    more = {**FEW, "seeds": 2, "drift_passes": 2, "phase": False}
    more["telephone"] = TelephoneSettings(rounds=1, n_clips=1, gap_seconds=0.3)
    table = compare_codecs(codecs, tiny_corpus, tmp_path / "run", **more)
    assert table is not None
    rows = {row.name: row.values for row in table.rows}
    names = ["tiny", "vary:0.9", "stft-variable (level 1)"]
    kbps = {name: rows[f"{name} resynthesis"]["bitrate"].mean for name in names}
    assert kbps["tiny"] == pytest.approx(tiny_codec.spec.bitrate / 1000)
    assert 0.85 < kbps["vary:0.9"] <= 0.9
    held_out = [load_tokens(path) for path in (tmp_path / "run" / "tokens").glob("*level1*")]
    [depths] = [depths_of(tokens.splits["test"]) for tokens in held_out]
    spec = make_variable(1.0).spec
    bits = sum(stream_bits(len(depth), 4, spec, depth) for depth in depths)
    seconds = sum(map(len, depths)) / spec.frame_rate
    assert kbps[names[2]] == pytest.approx(bits / seconds / 1000)
    for name in names[1:]:
        made = rows[f"{name} generated"]
        low, high = 50 * math.log2(60) / 1000, 1.05 * tiny_codec.spec.bitrate / 1000 + 0.1
        assert low < made["bitrate"].mean < high and made["bitrate"].n == 4
        assert 0 <= made["accuracy"].mean <= 1 and made["pesq"].n == 2
        assert rows[f"{name} resynthesis"]["drift_pesq"].n == 2
    assert "mean over utterances, with the bits of the depth" in str(table)
    shown = [path.name for path in (tmp_path / "run" / "samples").glob("*.depth.json")]
    assert shown and not [name for name in shown if "tiny" in name or "original" in name]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed is -1, but must be at least 0"),
        ({"step": 1}, TypeError, r"compare_codecs\(\) has no setting 'step' .did you mean steps"),
        ({"runs": "x"}, TypeError, "no setting 'runs'"),
        ({"metrics": ["polqa"]}, ValueError, r"metrics \['polqa'\]: known are"),
        ({"conditioning": "none"}, ValueError, "use mfcc, log_mel or another task"),
    ],
)
def test_wrong_settings_are_refused(more, error, message, tiny_codec, tiny_corpus, tmp_path):
    with pytest.raises(error, match=message):
        compare_codecs([tiny_codec], tiny_corpus, tmp_path / "run", **{**FEW, **more})
    assert not (tmp_path / "run").exists()


def test_wrong_codecs_and_folders_are_refused(tiny_codec, tiny_corpus, tmp_path) -> None:
    with pytest.raises(ValueError, match="no codec: give at least one, or tokens"):
        compare_codecs([], tiny_corpus, tmp_path / "run", **FEW)
    with pytest.raises(ValueError, match="give at least one, and each once"):
        compare_codecs([tiny_codec, tiny_codec], tiny_corpus, tmp_path / "run", **FEW)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="exists and is not a run's folder"):
        compare_codecs([tiny_codec], tiny_corpus, tmp_path, **FEW)


def test_names_that_may_change_are_settings() -> None:
    known = set(asdict(ComparisonSettings()))
    assert set(MAY_CHANGE) | set(MAY_CHANGE_IN_TRAINING) <= known
    assert set(MAY_CHANGE) - set(MAY_CHANGE_IN_TRAINING) == {"codec"}


def test_test_clips_out_of_reach_are_in_no_row_and_named(tiny_codec, tmp_path) -> None:
    lines = ["file_name,text,split"]
    for i, (seconds, split) in enumerate(((1.2, "train"), (1.0, "train"), (0.4, "test"),
                                          (1.1, "test"), (0.9, "test"))):  # fmt: skip
        write_audio(tmp_path / f"{i}.wav", make_tone(seconds, i), 16000)
        lines.append(f"{i}.wav,one,{split}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    codec = make_variable(None).with_rate(bitrate=0.31)  # shorter clips need more
    options = {**FEW, "n_test": 2}
    table = compare_codecs([tiny_codec, codec], tmp_path, tmp_path / "run", **options)
    assert table is not None and {row.values["pesq"].n for row in table.rows} == {2}
    [failure] = [f for f in table.failures if f.metric == "codes"]
    assert failure.clip == "2" and failure.row == f"{table.rows[-1].codec} resynthesis"
    assert "bitrate = 0.31 kbps" in failure.reason
    assert "1 test utterance is in no row: a codec could not encode it" in table.notes
    index = json.loads((tmp_path / "run/samples/index.json").read_text())
    assert index["clips"][0]["id"] == "3"
    saved = json.loads((tmp_path / "run/table.json").read_text())
    assert saved["failures"] == table.failures_as_dict()


def test_metrics_of_whole_rows_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"\['fad'\]: compare whole rows, not clips; `tokgen score`"
    ):
        ComparisonSettings(metrics=["pesq", "fad"])
    with pytest.raises(ValueError, match=r"margins of \['fad'\]"):
        ComparisonSettings(margins={"fad": 0.1})
