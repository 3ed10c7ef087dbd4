"""Seeds of steps, and what trackers get."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from makers.audio import make_tone
from tokgen.runs import accelerator as module
from tokgen.runs.accelerator import log_audio, make_accelerator, start_trackers, step_seed

RATE = 16000


@dataclass(frozen=True)
class Model:
    depth: int = 6
    dropout: float = 0.1


@dataclass(frozen=True)
class Settings:
    name: str = "run"
    compile: bool = False
    codec: str | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    folder: Path = Path("a")
    model: Model = field(default_factory=Model)


EXPECTED = {
    "name": "run", "compile": False, "codec": "None", "betas": "(0.9, 0.95)", "folder": "a",
    "model.depth": 6, "model.dropout": 0.1,
}  # fmt: skip


def test_step_seeds_differ_and_repeat():
    seeds = {step_seed(0, step, part) for step in range(50) for part in range(4)}
    assert len(seeds) == 200
    assert step_seed(3, 4) == step_seed(3, 4)
    torch.Generator().manual_seed(step_seed(3, 4))


def test_tensorboard_gets_settings_and_audio(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    accelerator = make_accelerator(tmp_path, "no", "tensorboard")
    start_trackers(accelerator, Settings())
    tone = make_tone(0.5, 0)
    log_audio(accelerator, "generated/a", tone, RATE, step=7)
    accelerator.end_training()

    events = EventAccumulator(str(tmp_path / "logs"), {"audio": 0}).Reload()
    assert events.Tags()["audio"] == ["generated/a"]
    (clip,) = events.Audio("generated/a")
    assert clip.step == 7 and clip.sample_rate == RATE and clip.length_frames == tone.shape[-1]
    sound = torch.frombuffer(bytearray(clip.encoded_audio_string[44:]), dtype=torch.int16)
    torch.testing.assert_close(sound / 32767, tone[0], rtol=0, atol=1e-4)

    (written,) = [f.parent for f in (tmp_path / "logs").glob("*/events*")]
    starts = EventAccumulator(str(written)).Reload().SummaryMetadata("_hparams_/session_start_info")
    found = HParamsPluginData.FromString(starts.plugin_data.content).session_start_info.hparams
    values = {name: getattr(v, v.WhichOneof("kind")) for name, v in found.items()}
    assert values == pytest.approx(EXPECTED | {"compile": 0})


class Recorder(GeneralTracker):
    """A tracker that keeps what it gets."""

    name = "recorder"
    requires_logging_directory = False

    def __init__(self, run_name, **kwargs):
        super().__init__()
        self.config, self.logged, self.clips = None, [], []

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **kwargs):
        self.logged.append((values, step))


class AudioRecorder(Recorder):
    name = "audio_recorder"

    def log_audio(self, name, waveform, sample_rate, step):
        self.clips.append((name, waveform.shape, sample_rate, step))


@pytest.mark.parametrize("kind", [Recorder, AudioRecorder])
def test_other_trackers_get_settings_and_audio_if_they_take_it(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, kind.name, kind)  # as register_tracker_class does
    accelerator = make_accelerator(tmp_path, "no", kind.name)
    start_trackers(accelerator, Settings())
    log_audio(accelerator, "a", make_tone(0.5, 0), RATE, step=7)
    (tracker,) = accelerator.trackers
    assert tracker.config == EXPECTED
    assert tracker.clips == ([("a", (8000,), RATE, 7)] if kind is AudioRecorder else [])
    assert tracker.logged == []


def test_no_tracker_gets_nothing(tmp_path):
    accelerator = make_accelerator(tmp_path, "no", "none")
    start_trackers(accelerator, Settings())
    log_audio(accelerator, "a", make_tone(0.5, 0), RATE, step=7)
    assert accelerator.trackers == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tracker", "fix"),
    [("tensorboard", r"pip install 'tokgen\[train\]'"), ("wandb", "pip install wandb")],
)
def test_missing_trackers_name_the_fix(tracker, fix, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "get_available_trackers", list)
    with pytest.raises(ModuleNotFoundError, match=fix):
        make_accelerator(tmp_path, "no", tracker)


def test_unknown_trackers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nope"):
        make_accelerator(tmp_path, "no", "nope")
