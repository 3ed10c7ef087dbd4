"""A recipe's log file is short, and its tracker gets settings and audio."""

from __future__ import annotations

from makers.recipes import TINY_MODEL, run
from tokgen.runs.folder import read_history


def test_vocode_mfcc_logs_to_tensorboard(tiny_codec_folder, tiny_corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {
        "name": "a", "runs": tmp_path, "codec": tiny_codec_folder, "corpus": tiny_corpus,
        "steps": 40, "batch_size": 2, "crop_seconds": 0.5, "log_every": 10,
        "tracker": "tensorboard", "mixed_precision": "no", "sampling.steps": "[2,1]",
        "metrics": "si_sdr",
    }  # fmt: skip
    flags = [x for k, v in settings.items() for x in (f"--{k}", v)]
    out = run("vocode_mfcc.py", *flags, *TINY_MODEL)
    assert "\r" not in out and "it/s" not in out  # no bars of ours or of libraries
    assert len([line for line in out.splitlines() if line.startswith("training: ")]) == 2
    assert "training: 40/40 step (100 %)" in out and "loss=" in out

    events = EventAccumulator(str(tmp_path / "a/logs"), {"audio": 0, "scalars": 0}).Reload()
    found = events.Tags()["audio"]
    rows = {"original", "resynthesis", "generated", "unconditional"}
    assert {tag.split("/")[0] for tag in found} == rows
    clip = events.Audio(found[0])[0]
    assert clip.step == 40 and clip.sample_rate == 16000
    losses = [event.value for event in events.Scalars("loss")]
    assert len(losses) == len(read_history(tmp_path / "a/history.jsonl")) == 4
    assert list((tmp_path / "a/logs").glob("*/hparams.yml"))
