"""F0 and voicing errors: known transpositions, octaves, noise and silence."""

import math
import multiprocessing
import sys

import pytest
import torch

from makers.paths import ALLISON
from tokgen.audio.resampling import resample
from tokgen.corpus.listed import open_corpus
from tokgen.metrics import pitch
from tokgen.metrics.pitch import HOP_SECONDS, PitchErrors, pitch_errors, track_pitch

RATE = 16000


def make_voice(cents=0.0, seconds=2.0, rate=RATE):
    """Make harmonics of an F0 between 110 and 190 Hz, shifted by `cents`."""
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    f0 = (150 + 40 * torch.sin(2 * math.pi * 0.8 * t)) * 2 ** (cents / 1200)
    phase = 2 * math.pi * torch.cumsum(f0, 0) / rate
    partials = [torch.sin(k * phase) / k * (k * f0 < 0.45 * rate) for k in range(1, 20)]
    return 0.1 * sum(partials).float()[None], f0


def make_noise(n, seed=0):
    return 0.1 * torch.randn(1, n, generator=torch.Generator().manual_seed(seed))


def test_the_track_is_the_f0_of_a_synthetic_voice():
    voice, f0 = make_voice()
    track = track_pitch(voice, RATE)
    assert track.dtype == torch.float64 and len(track) == 125  # every 16 ms from 0 to 2 s
    truth = f0[:: round(HOP_SECONDS * RATE)]
    inner = slice(5, 120)
    assert (track[inner] > 0).all()
    cents = 1200 * torch.log2(track[inner] / truth[inner])
    assert cents.abs().max() < 10


@pytest.mark.parametrize("shift", [100, -100, 25])
def test_a_transposition_is_measured_in_cents(shift):
    errors = pitch_errors(
        track_pitch(make_voice()[0], RATE), track_pitch(make_voice(shift)[0], RATE)
    )
    assert errors.f0_rmse_cents == pytest.approx(abs(shift), abs=2)
    assert errors.gross_error == 0
    assert errors.voicing_error < 0.02


@pytest.mark.parametrize(("shift", "gross"), [(1200, 1), (-600, 1), (340, 1), (290, 0)])
def test_errors_over_twenty_percent_are_gross(shift, gross):
    """20 % is 316 cents; an octave counts as gross."""
    reference, estimate = (track_pitch(make_voice(c)[0], RATE) for c in (0, shift))
    assert pitch_errors(reference, estimate).gross_error == pytest.approx(gross, abs=0.03)


def test_errors_by_hand():
    reference = torch.tensor([0.0, 100, 100, 100, 200, 0])
    estimate = torch.tensor([90.0, 100, 200, 81, 0, 0])
    cents = [0, 1200, 1200 * math.log2(0.81)]
    assert pitch_errors(reference, estimate) == PitchErrors(
        f0_rmse_cents=pytest.approx(math.sqrt(sum(c**2 for c in cents) / 3)),
        gross_error=pytest.approx(1 / 3),  # 81 is off by 19 %
        voicing_error=pytest.approx(2 / 6),
    )
    assert pitch_errors(reference, 0.79 * reference).gross_error == 1


def test_speech_compared_with_changed_copies():
    speech = next(iter(open_corpus(ALLISON, split="test").utterances(RATE, rejected=[]))).waveform
    track = track_pitch(speech, RATE)
    assert 0.3 < (track > 0).double().mean() < 0.95
    assert 120 < track[track > 0].median() < 300  # a woman's voice
    assert pitch_errors(track, track) == PitchErrors(0, 0, 0)
    assert pitch_errors(track, track_pitch(0.01 * speech + 0.1, RATE)).f0_rmse_cents < 0.01
    upsampled = pitch_errors(track, track_pitch(resample(speech, RATE, 44100), 44100)[: len(track)])
    assert upsampled.f0_rmse_cents < 5 and upsampled.voicing_error < 0.02
    padded = torch.nn.functional.pad(speech, (60 * 256, RATE))
    padded = track_pitch(padded, RATE)[60:][: len(track)]
    assert pitch_errors(track, padded).voicing_error < 0.01
    noisy = pitch_errors(track, track_pitch(speech + make_noise(speech.shape[-1]), RATE))
    assert 0.02 < noisy.voicing_error < 0.9


def test_noise_has_no_voice():
    reference = track_pitch(make_voice()[0], RATE)
    errors = pitch_errors(reference, track_pitch(make_noise(2 * RATE), RATE))
    assert errors.voicing_error > 0.9


def test_silence_is_unvoiced():
    voice, silence = track_pitch(make_voice()[0], RATE), track_pitch(torch.zeros(1, 2 * RATE), RATE)
    assert silence.max() == 0
    for reference, estimate in ((voice, silence), (silence, voice)):
        errors = pitch_errors(reference, estimate)
        assert errors.voicing_error > 0.98
        assert math.isnan(errors.f0_rmse_cents) and math.isnan(errors.gross_error)
    both = pitch_errors(silence, silence)
    assert both.voicing_error == 0 and math.isnan(both.f0_rmse_cents)


@pytest.mark.parametrize("kind", ["no samples", "too short", "nan", "infinity"])
def test_broken_audio_has_no_track(kind):
    voice, _ = make_voice()
    here = torch.arange(voice.shape[-1]) == 99
    broken = {
        "no samples": voice[:, :0],
        "too short": voice[:, :3199],
        "nan": torch.where(here, math.nan, voice),
        "infinity": torch.where(here, math.inf, voice),
    }[kind]
    assert track_pitch(broken, RATE) is None
    whole = track_pitch(voice, RATE)
    for errors in (pitch_errors(None, whole), pitch_errors(whole, None)):
        values = (errors.f0_rmse_cents, errors.gross_error, errors.voicing_error)
        assert all(map(math.isnan, values))
    assert track_pitch(voice[:, :3200], RATE).count_nonzero() >= 10


def test_tracking_is_deterministic():
    voice, _ = make_voice()
    first = track_pitch(voice, RATE)
    track_pitch(make_noise(RATE), RATE)
    assert torch.equal(track_pitch(voice.flatten(), RATE), first)


def test_a_forked_process_tracks_the_same():
    voice, _ = make_voice()
    first = track_pitch(voice, RATE)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        again = pool.apply_async(track_pitch, (voice, RATE)).get(timeout=60)
    assert torch.equal(again, first)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "swift_f0", None)
    pitch._detector.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[eval\]'"):
        track_pitch(make_voice()[0], RATE)


def test_tracks_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="201 and 101 frames"):
        pitch_errors(torch.zeros(201), torch.zeros(101))
