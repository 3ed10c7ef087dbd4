"""The ablation of the variable bitrate: its plan, its scores, and a small run from start to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from makers.audio import codec_tone
from makers.codecs import make_variable
from tokgen.codec_training.settings import CodecTrainingSettings
from tokgen.codec_training.variable_ablation.measure import Measured, check_bitrates, measure
from tokgen.codec_training.variable_ablation.run import MEASURED, run_variable_ablation
from tokgen.codec_training.variable_ablation.settings import (
    VariableAblationSettings,
    cell_of,
    conditions_of,
)
from tokgen.codec_training.variable_ablation.table import variable_table
from tokgen.corpus.listed import open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.metrics.si_sdr import si_sdr
from tokgen.quantizers.settings import VariableSettings
from tokgen.zoo.lookup import load_codec

TRAINING = CodecTrainingSettings(quantizer="variable")
MODEL = (
    *("sample_rate", "hop_length", "n_fft", "width", "encoder_depth", "decoder_depth", "expansion"),
    *("latent_dim", "n_codebooks", "codebook_size", "codebook_dim"),
)  # settings of the tiny codec


def test_conditions_are_sharpnesses_and_surrogates():
    s = VariableAblationSettings()
    assert [c.label for c in conditions_of(s)] == [
        "logcosh, alpha 1", "logcosh, alpha 2", "logcosh, alpha 4", "logcosh, alpha 128",
        "square", "sigmoid, alpha 2",
    ]  # fmt: skip
    few = replace(s, alphas=[1.0])  # the paper's surrogate with the sharpness of the others
    assert [c.label for c in conditions_of(few)] == [
        "logcosh, alpha 1", "logcosh, alpha 2", "square", "sigmoid, alpha 2"
    ]  # fmt: skip
    cell = cell_of(s, conditions_of(s)[3], 1)
    assert (cell.variable.surrogate, cell.variable.alpha, cell.seed) == ("logcosh", 128.0, 1)
    assert cell.variable.full_share == s.training.variable.full_share


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": CodecTrainingSettings()}, "training.quantizer 'residual': .* set it to var"),
        ({"training": replace(TRAINING, validation_split="test")}, "'test': .* use another split"),
        ({"surrogates": ["relu"]}, "surrogate 'relu': known are logcosh, square, sigmoid"),
        ({"alphas": [0.0]}, "alpha = 0.0: must be above 0"),
        ({"bitrates": []}, r"bitrates = \[\]: give at least one"),
        ({"alphas": [], "surrogates": []}, "alphas and surrogates are empty"),
    ],
)
def test_wrong_plans_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        VariableAblationSettings(**changes)


def test_bitrates_lie_within_the_levels():
    spec = make_variable(None).spec  # 4 levels of 0.295 kbps
    check_bitrates([0.4, 1.0], spec)
    for kbps in (0.3, 1.3):
        with pytest.raises(ValueError, match=r"4 levels of 0\.295 kbps; give 0\.325 to 1\.18"):
            check_bitrates([kbps], spec)


def test_scores_of_a_constant_rate_lie_between_those_of_the_levels(tiny_corpus):
    codec = make_variable(None)
    clips = DriftClips(open_corpus(tiny_corpus, split="train"), seconds=None)
    per_level = codec.spec.bitrate / 4000
    found = measure(codec, clips, [2 * per_level, 2.25 * per_level])
    exact, between = (f"si_sdr_{n * per_level:g}" for n in (2, 2.25))
    audio = clips.load(0, codec.spec.sample_rate)
    two, three = (float(si_sdr(audio, codec.roundtrip(audio[None], n)[0])) for n in (2, 3))
    assert found.constant[exact][0] == pytest.approx(two, abs=1e-3)
    assert found.constant[between][0] == pytest.approx(0.75 * two + 0.25 * three, abs=1e-3)
    reached = found.variable[f"kbps_{2.25 * per_level:g}"]
    assert all(x <= 2.25 * per_level for x in reached) and len(reached) == len(clips)
    assert found.importance["0.1"][0] < found.importance["0.9"][0]


def measured(variable: list[float], constant: list[float]) -> Measured:
    ids = [str(i) for i in range(len(variable))]
    spread = {q: [0.5] * len(ids) for q in ("0.1", "0.5", "0.9")}
    scores = {f"{name}_2": values for name in ("pesq", "si_sdr") for values in [variable]}
    same = {f"{name}_2": values for name in ("pesq", "si_sdr") for values in [constant]}
    return Measured(ids, spread, scores | {"kbps_2": [2.0] * len(ids)}, same)


def test_differences_are_paired_over_clips_and_seeds():
    s = VariableAblationSettings(alphas=[1.0, 2.0], surrogates=[], bitrates=[2.0], n_resamples=200)
    hard = np.linspace(1.5, 3.5, 8)  # clips differ by far more than the conditions
    seeds = (0.0, 0.2)
    found = {
        f"logcosh, alpha {alpha}": [
            measured((hard + gain + x).tolist(), (hard + x).tolist()) for x in seeds
        ]
        for alpha, gain in ((1, 0.1), (2, 0.3))
    }
    table = variable_table(found, s)
    differences = {(d.row, d.than, d.metric): d for d in table.differences}
    two, one = "logcosh, alpha 2", "logcosh, alpha 1"
    gain = differences[two, f"{two}, constant rate", "pesq_2"]
    assert gain.estimate.mean == pytest.approx(0.3) and gain.verdict == "better"
    assert differences[one, two, "pesq_2"].estimate.mean == pytest.approx(-0.2)
    assert (two, one, "pesq_2") not in differences
    assert [row.name for row in table.rows][:2] == [one, f"{one}, constant rate"]
    assert "400 steps with 2 seeds; 8 validation clips" in table.notes[0]


@pytest.fixture
def settings(tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path):
    config = json.loads((tiny_codec_folder / "config.json").read_text())
    model = {k: v for k, v in config.items() if k in MODEL}
    training = CodecTrainingSettings(
        model=model, quantizer="variable", variable=VariableSettings(widths=(8, 4)),
        start_from=str(tiny_codec_folder), corpora=[str(tiny_corpus)],
        discriminator={"periods": [], "windows": [128], "channels": 2}, adversarial_start=100,
        steps=2, batch_size=4, seconds=0.25, validation_min_seconds=0.0, validate_every=2,
        checkpoint_every=1, mixed_precision="no", max_codebook_loss=1e6,
    )  # fmt: skip
    return VariableAblationSettings(
        name="plan", runs=str(tmp_path), alphas=[2.0, 128.0], surrogates=["square"],
        bitrates=[0.5, 0.8], seeds=2, training=training, n_resamples=200,
    )  # fmt: skip


def test_a_whole_ablation_and_its_resume(settings, tmp_path):
    table = run_variable_ablation(settings)
    run = tmp_path / "plan"
    assert all((run / f"table.{end}").is_file() for end in ("json", "csv", "md"))
    cells = sorted(run.glob(f"cells/*/{MEASURED}"))
    assert len(cells) == 6 and len(table.rows) == 6
    clips = json.loads(cells[0].read_text())["ids"]
    row = table.rows[0]
    assert row.values["si_sdr_0.5"].n == len(clips) and "kbps_0.8" in row.values
    assert 0 < row.values["importance_0.5"].mean < 1
    saved = {(d.row, d.than) for d in table.differences}
    assert ("square", "square, constant rate") in saved and ("square", "logcosh, alpha 2") in saved
    audio = codec_tone(codec := load_codec(cells[0].parent / "codec"), 16000)
    assert codec.variable and codec.encode_with_side(audio, level=1.0).depth is not None
    # The same command measures and trains nothing again.
    cells[0].unlink()
    before = [path.stat().st_mtime_ns for path in cells[1:]]
    torch.manual_seed(5)
    again = run_variable_ablation(settings)
    assert again.to_dict() == table.to_dict()
    assert [path.stat().st_mtime_ns for path in cells[1:]] == before
    with pytest.raises(ValueError, match="holds a run with seeds = 2, not 1"):
        run_variable_ablation(replace(settings, seeds=1))
