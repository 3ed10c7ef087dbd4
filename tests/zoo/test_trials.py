"""Trials of published codecs. With `-m network` they run every checkpoint that tokgen can load:

    pytest -m network tests/zoo/test_trials.py

The results go to the column "run" of `tokgen codecs`. `TOKGEN_TRIAL_DEVICE` names the device. For
checkpoints that load from a folder, published or converted, `TOKGEN_CONVERTED` names a folder that
holds one for each: hubertsiuzdak--snac_24khz for hubertsiuzdak/snac_24khz.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from makers.audio import make_tone
from makers.codecs import make_dac
from makers.paths import ALLISON
from tokgen.corpus.listed import open_corpus
from tokgen.zoo.published import PublishedCodec, read_published
from tokgen.zoo.trials import Trial, read_trials, record_trial, try_codec

SPEECH_16K = {"sample_rate": 16000, "hop_length": 320, "kbps": 4.0}
TRIAL = Trial("here", "", "tokgen", "0.1", "2.11", mel=1.0, mel_backwards=2.0)


@pytest.fixture(scope="module")
def clip():
    corpus = open_corpus(str(ALLISON))
    return corpus.load(corpus.entries[0], 16000).waveform[None, :, :48000]


def test_a_codec_that_works_passes(clip):
    trial = try_codec("speech-16k", clip, 16000, **SPEECH_16K)
    assert not trial.problem and trial.mel < 0.7 * trial.mel_backwards
    assert trial.brief == trial.machine and trial.machine.endswith(" cpu")


def test_other_numbers_than_the_table_are_reported(clip):
    trial = try_codec("speech-16k", clip, 16000, **SPEECH_16K | {"kbps": 4.5})
    assert "kbps are (16000, 320, 4.0), the table has (16000, 320, 4.5)" in trial.problem


def test_random_weights_are_reported(clip, tmp_path):
    make_dac("dac-even").save_pretrained(tmp_path / "dac")
    numbers = {"sample_rate": 8000, "hop_length": 64, "kbps": 1.875}
    trial = try_codec(str(tmp_path / "dac"), clip, 16000, **numbers)
    assert "no closer than reversed" in trial.problem and trial.brief.startswith(trial.machine)


def test_codecs_without_codes_are_tried(clip):
    row = next(c for c in read_published() if c.id == "opus:24")
    assert not _try(row, clip).problem


def test_the_newest_trial_of_a_machine_is_kept(tmp_path):
    path = tmp_path / "trials.json"
    assert read_trials(path) == {}
    for trial in (TRIAL, replace(TRIAL, machine="there"), replace(TRIAL, problem="silence")):
        record_trial("a/b", trial, path)
    record_trial("a/a", TRIAL, path)
    kept = [replace(TRIAL, machine="there"), replace(TRIAL, problem="silence")]
    assert read_trials(path) == {"a/a": [TRIAL], "a/b": kept}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "trials.json").write_text('{"a/b": [{"machine": "here"}]}')
    with pytest.raises(ValueError, match=r"trials\.json cannot be read"):
        read_trials(tmp_path / "trials.json")


def test_the_clip_may_have_any_rate():
    numbers = {"sample_rate": 22050, "hop_length": 576, "kbps": 24}
    trial = try_codec("mp3:24", make_tone(1.0, 0, 44100)[None], 44100, **numbers)
    assert "table" not in trial.problem


@pytest.mark.network
@pytest.mark.parametrize("codec", read_published(), ids=lambda c: c.id)
def test_published_codec(codec: PublishedCodec, clip):
    if not codec.installed:
        pytest.skip(codec.runs_with)
    trial = _try(codec, clip)
    record_trial(codec.id, trial)
    assert not trial.problem


def _try(codec: PublishedCodec, clip) -> Trial:
    name = codec.id
    if codec.folder or codec.converted:
        name = str(Path(os.environ.get("TOKGEN_CONVERTED", "")) / codec.id.replace("/", "--"))
        if not Path(name).is_dir():
            pytest.skip(f"{codec.id} needs a folder; see TOKGEN_CONVERTED")
    device = os.environ.get("TOKGEN_TRIAL_DEVICE", "cpu")
    numbers = {k: getattr(codec, k) for k in ("sample_rate", "hop_length", "kbps")}
    return try_codec(name, clip, 16000, **numbers, device=device)
