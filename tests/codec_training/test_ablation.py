"""The ablation of drift: its plan, its table, and small runs from start to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from makers.codecs import make_stft_codec, save_codec
from tokgen.codec_training.ablation import TUNED, run_ablation
from tokgen.codec_training.ablation_settings import AblationSettings, cell_of, conditions_of
from tokgen.codec_training.ablation_table import Measured, ablation_table
from tokgen.codec_training.settings import TuningSettings
from tokgen.drift.passes import ClipDrift, DriftRun
from tokgen.metrics.delay import Delay


def test_conditions_cross_losses_with_later_passes():
    s = AblationSettings(
        loss=["none", "code"], weight={"code": 4.0}, tuning=TuningSettings(passes=2),
        extra={"moved": {"loss": "none", "shift": 160}},
    )  # fmt: skip
    conditions = conditions_of(s)
    assert [(c.label, c.than) for c in conditions] == [
        ("none", ""), ("code", ""), ("none + later", "none"), ("code + later", "code"),
        ("moved", "none"),
    ]  # fmt: skip
    code_later = cell_of(s, conditions[3], seed=2)
    assert (code_later.loss, code_later.later_weight, code_later.seed) == ("code", 1.0, 2)
    assert code_later.weight == 4.0 and cell_of(s, conditions[4], seed=0).shift == 160
    assert cell_of(s, conditions[1], seed=0, weight=9.0).weight == 9.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": ["latent"]}, "loss 'latent': known are none, enc, proj, code"),
        ({"extra": {"a": {"shifts": 1}}}, "extra 'a': unknown setting 'shifts'"),
        ({"extra": {"none": {}}}, "extra 'none': this is the label of another condition"),
        ({"scored": [1, 30]}, r"scored = \[1, 30\]: must be passes from 1 to 25"),
        ({"later_weight": []}, "must not be empty"),
        ({"tuning": TuningSettings(passes=1)}, "there is no later pass"),
    ],
)
def test_wrong_plans_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AblationSettings(**{"tuning": TuningSettings(passes=2), **changes})


def drift_run(pesq: list[list[float]]) -> DriftRun:
    """A run with these PESQ values, [clips][passes]; the other values are zero."""
    clips = []
    for values in pesq:
        zeros = np.zeros(len(values))
        match = np.zeros((len(values), 2))
        clips.append(
            ClipDrift({"pesq": np.array(values), "si_sdr": zeros, "match_previous": match}, None)
        )
    ids = [str(n) for n in range(len(pesq))]
    return DriftRun("x", {}, 4000.0, Delay(0, 1.0), ids, clips, 32, [], "first 5 s of clips")


def test_differences_are_paired_over_clips_and_seeds():
    s = AblationSettings(
        loss=["none", "code"], later_weight=[0.0], seeds=2, passes=2, scored=[1, 2], shifts=[0],
        weight={"code": 1.0},
    )  # fmt: skip
    hard = np.linspace(1.5, 3.5, 8)  # clips differ by far more than the conditions
    first = np.stack([hard, hard - 1.0], 1)
    runs = {
        "untuned": [drift_run(first.tolist())],
        "none": [drift_run((first + seed).tolist()) for seed in (0.0, 0.2)],
        "code": [drift_run((first + np.array([0.0, 0.5 + seed])).tolist()) for seed in (0.0, 0.2)],
    }
    rows = [
        Measured("untuned", (), None, {0: runs["untuned"]}),
        Measured("none", ("untuned",), None, {0: runs["none"]}),
        Measured("code", ("untuned", "none"), 1.0, {0: runs["code"]}),
    ]
    table = ablation_table(rows, s)
    assert [row.name for row in table.rows] == ["untuned", "none", "code (weight 1)"]
    assert table.rows[0].values["pesq_2"].mean == pytest.approx(first[:, 1].mean())
    found = {(d.row, d.than, d.metric): d for d in table.differences}
    gain = found["code (weight 1)", "none", "pesq_2"]
    assert gain.estimate.mean == pytest.approx(0.5) and gain.verdict == "better"
    assert gain.estimate.low == pytest.approx(0.5) and gain.estimate.high == pytest.approx(0.5)
    loss = found["code (weight 1)", "none", "pesq_1"].estimate
    assert loss.mean == pytest.approx(-0.1)
    assert found["code (weight 1)", "untuned", "pesq_2"].estimate.mean == pytest.approx(0.6)
    assert "with 2 seeds; intervals over clips and seeds" in table.notes[0]
    # The order of `scored` does not matter.
    again = ablation_table(rows, replace(s, scored=[2, 1]), ["code: a note"])
    assert [m.name for m in again.metrics] == [m.name for m in table.metrics]
    assert again.differences == table.differences and again.notes[-1] == "code: a note"
    one = {label: [runs[0]] for label, runs in runs.items()}
    alone = ablation_table([Measured("none", (), None, {0: one["none"]})], replace(s, seeds=1))
    assert "with one seed; intervals over clips only" in alone.notes[0]


@pytest.fixture
def settings(tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path) -> AblationSettings:
    tuning = TuningSettings(
        corpora=[str(tiny_corpus)], discriminator={"periods": [], "windows": [256], "channels": 2},
        discriminator_warmup=0, passes=2, steps=2, batch_size=2, seconds=0.25, sweep=[1.0, 1e6],
        learning_rate=0.01, adversarial_share=0.0, validation_passes=2, validation_min_seconds=0.0,
        validate_every=2, checkpoint_every=1, mixed_precision="no", sweep_tolerance=-0.5,
    )  # fmt: skip
    return AblationSettings(
        name="plan", runs=str(tmp_path), codec=str(tiny_codec_folder), loss=["none", "code"],
        seeds=2, tuning=tuning, corpus=[str(tiny_corpus)], min_seconds=0.0, passes=3, scored=[1, 3],
        shifts=[0, "random"], n_resamples=200,
        extra={"moved": {"loss": "none", "later_weight": 1.0, "shift": 100}},
    )  # fmt: skip


def test_an_ablation_sweeps_tunes_measures_and_resumes(settings, tmp_path):
    table = run_ablation(settings)
    run = tmp_path / "plan"
    weights = json.loads((run / "weights.json").read_text())
    # The largest weight is tried first, and the other one only if it does not hold.
    limit = (1 + settings.tuning.sweep_tolerance) * weights["untuned"]["loss"]
    trials = {label: trial["loss"] for label, trial in weights["trials"].items()}
    assert set(trials) == {"code x 1e+06", "code x 1"} and trials["code x 1e+06"] > limit
    assert weights["chosen"] == {"code": 1.0, "code + later": 1.0}
    said = r"code: no weight of [1.0, 1000000.0] holds the validation loss within -50%"
    assert [note for note in table.notes if note.startswith(said)]
    names = [row.name.split(" (")[0] for row in table.rows]
    assert names == ["untuned", "none", "code", "none + later", "code + later", "moved"]
    assert {"pesq_1", "pesq_3", "pesq_3_shift_random", "match_3"} <= set(table.rows[1].values)
    for name in ("table.json", "table.csv", "table.md", "table.tex", "ablation.png"):
        assert (run / name).stat().st_size > 0
    cells = sorted(run.glob(f"cells/*/{TUNED}"))
    assert len(cells) == 5 * 2 + 1  # conditions x seeds, and the trial of the other weight

    # The same call reads what is there; other settings are refused.
    (run / "table.json").unlink()
    before = [path.stat().st_mtime_ns for path in cells]
    again = run_ablation(settings)
    assert again.to_dict() == table.to_dict() and (run / "table.json").is_file()
    assert [path.stat().st_mtime_ns for path in cells] == before
    with pytest.raises(ValueError, match="holds a run with passes = 3, not 4"):
        run_ablation(replace(settings, passes=4, scored=[1, 4]))


def test_a_sweep_ends_at_the_largest_weight_that_holds(settings, tmp_path):
    tuning = replace(settings.tuning, sweep_tolerance=1e6)
    base = save_codec(make_stft_codec(4), tmp_path / "base")
    one = replace(
        settings, codec=str(base), loss=["code"], later_weight=[0.0], extra={}, seeds=1, shifts=[0],
        tuning=tuning,
    )  # fmt: skip
    run_ablation(one)
    weights = json.loads((tmp_path / "plan" / "weights.json").read_text())
    assert list(weights["trials"]) == ["code x 1e+06"] and weights["chosen"] == {"code": 1e6}
    assert "holds the validation loss" not in (tmp_path / "plan" / "table.md").read_text()

    # Cells that are done are not those of a codec that was trained again.
    save_codec(make_stft_codec(5), Path(one.codec))
    with pytest.raises(ValueError, match=r"holds a run with codec\.weight_hash"):
        run_ablation(one)
