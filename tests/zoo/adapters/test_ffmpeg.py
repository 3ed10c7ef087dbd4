"""MP3 and Opus keep length, time and level, and have the requested bitrate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from makers.audio import make_tone
from makers.paths import ALLISON
from tokgen.audio.bitrates import LOSSY_KBPS
from tokgen.audio.lossy import MP3_KBPS, advance, opus_mode
from tokgen.corpus.listed import open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.metrics.delay import delay_between, pink_noise
from tokgen.zoo.adapters.ffmpeg import FfmpegCodec
from tokgen.zoo.lookup import load_roundtrip

ALL = [("mp3", 8), ("mp3", 24), ("mp3", 32), ("mp3", 128), ("opus", 6), ("opus", 24), ("opus", 64)]


@pytest.mark.parametrize(("kind", "kbps"), ALL)
def test_length_rate_and_name(kind: str, kbps: float) -> None:
    codec = FfmpegCodec(kind, kbps)
    assert codec.spec.name == f"{kind}:{kbps}"
    assert codec.spec.bitrate == 1000 * kbps
    assert codec.spec.hop_length == (576 if kind == "mp3" else 960)
    for n in (1, 959, 20011):
        waveform = torch.stack([pink_noise(n, seed)[None] for seed in (0, 1)]) if n > 1 else None
        waveform = torch.full((2, 1, 1), 0.3) if waveform is None else waveform
        output = codec.roundtrip(waveform)
        assert output.shape == waveform.shape
        assert output.dtype == torch.float32
        assert torch.isfinite(output).all()
        torch.testing.assert_close(output[1:], codec.roundtrip(waveform[1:]))


@pytest.mark.parametrize(
    ("kind", "kbps"), [("mp3", 8), ("mp3", 24), ("mp3", 32), ("mp3", 128), ("opus", 64)]
)
def test_25_passes_end_with_zero_lag(kind: str, kbps: float) -> None:
    codec = FfmpegCodec(kind, kbps)
    original = pink_noise(2 * codec.spec.sample_rate, 0)
    output = original[None, None]
    for _ in range(25):
        output = codec.roundtrip(output)
    delay = delay_between(original, output[0, 0], 4000)
    assert delay.is_known
    assert delay.samples == 0


@pytest.mark.parametrize(
    ("kbps", "mode"), [(9, "narrow"), (12, "wide"), (24, "hybrid"), (64, "celt")]
)
def test_25_passes_of_opus_do_not_delay_speech(kbps: float, mode: str) -> None:
    """In every mode of Opus, within 2 samples at 48 kHz."""
    corpus = open_corpus(ALLISON, split="test", min_seconds=2.0)
    original = DriftClips(corpus, 2.0, 1).load(0, 48000)
    codec = FfmpegCodec("opus", kbps)
    assert opus_mode(codec.coder.packets(original[0].numpy())[0]) == mode
    output = original[None]
    for _ in range(25):
        output = codec.roundtrip(output)
    delay = delay_between(original[0], output[0, 0], 2000)
    assert delay.is_known
    assert abs(delay.samples) <= 2


@pytest.mark.parametrize(
    ("kbps", "mode"), [(6, "narrow"), (12, "wide"), (24, "hybrid"), (64, "celt")]
)
def test_opus_has_less_than_a_sample_of_delay_in_every_mode(kbps: float, mode: str) -> None:
    """Measured as phase between input and output, in a band that SILK codes in every mode."""
    codec = FfmpegCodec("opus", kbps)
    noise = 2 * pink_noise(10 * 48000, 0)
    assert opus_mode(codec.coder.packets(noise.numpy())[0]) == mode
    output = codec.roundtrip(noise[None, None])[0, 0]
    window = torch.hann_window(4096)
    spectra = [
        torch.stft(x, 4096, 2048, window=window, return_complex=True) for x in (noise, output)
    ]
    cross = (spectra[1] * spectra[0].conj()).sum(-1)
    hz = torch.fft.rfftfreq(4096, 1 / 48000)
    band = (hz > 700) & (hz < 2500)
    late = -cross.angle()[band] / (2 * torch.pi * hz[band]) * 48000
    assert late.mean().abs() < 0.6  # the high-pass filter follows a pitch, which noise lacks


@pytest.mark.parametrize("kbps", [6, 12])
def test_decoded_opus_does_not_depend_on_what_follows_a_packet_in_memory(kbps: float) -> None:
    codec = FfmpegCodec("opus", kbps)
    for sound in (make_tone(1.0, 0, 48000)[0], pink_noise(48000, 0)):
        packets, _ = codec.coder.packets(sound.numpy())
        expected = codec.coder.decode_packets(packets)
        for filling in (b"\0", b"\xff", b"\x5a"):
            followed = [memoryview(packet + 64 * filling)[: len(packet)] for packet in packets]
            np.testing.assert_array_equal(codec.coder.decode_packets(followed), expected)


@pytest.mark.parametrize(("kind", "kbps"), [("mp3", 32), ("mp3", 128), ("opus", 24), ("opus", 64)])
def test_loud_audio_is_not_clipped_between_passes(kind: str, kbps: float) -> None:
    codec = FfmpegCodec(kind, kbps)
    n = codec.spec.sample_rate
    tone = 1.2 * torch.sin(2 * torch.pi * 400 * torch.arange(n) / n)
    if kind == "opus" and kbps == 24:
        tone = tone / 1.5  # SILK clips at 16 bits
    output = codec.roundtrip(tone[None, None])[0, 0]
    middle = slice(n // 4, 3 * n // 4)
    ratio = output[middle].square().mean() / tone[middle].square().mean()
    assert 10 * ratio.log10().abs() < 0.5
    assert output[middle].abs().max() > 0.9 * tone.max()


def test_silence_stays_silence() -> None:
    for kind, kbps in ALL:
        codec = FfmpegCodec(kind, kbps)
        output = codec.roundtrip(torch.zeros(1, 1, codec.spec.sample_rate))
        assert output.abs().max() < 1e-4


@pytest.mark.parametrize(("kbps", "share"), [(8, 0.0), (12, 0.15), (32, 0.0), (100, 0.15)])
def test_mp3_has_the_requested_bitrate(kbps: float, share: float) -> None:
    """Constant bitrates are exact; others hold roughly, on average."""
    codec = FfmpegCodec("mp3", kbps)
    rate = codec.spec.sample_rate
    packets, _ = codec.coder.packets(pink_noise(4 * rate, 0).numpy())
    seconds = len(packets) * (576 if rate < 32000 else 1152) / rate
    assert sum(map(len, packets)) * 8 / seconds == pytest.approx(1000 * kbps, rel=share + 0.01)


@pytest.mark.parametrize("kbps", [6, 12, 31])
def test_opus_has_the_requested_bitrate(kbps: float) -> None:
    packets, _ = FfmpegCodec("opus", kbps).coder.packets(pink_noise(96000, 0).numpy())
    assert sum(map(len, packets)) * 8 / (len(packets) * 0.02) == pytest.approx(
        1000 * kbps, rel=0.01
    )


@pytest.mark.parametrize("late", [6.1, -0.31, 0.0, 2.0])
def test_advance_undoes_a_delay(late: float) -> None:
    n = np.arange(4000)
    samples = np.sin(0.05 * (n - late)) * np.hanning(4000)
    expected = np.sin(0.05 * n) * np.hanning(4000)
    np.testing.assert_allclose(advance(samples, late)[100:-100], expected[100:-100], atol=6e-3)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="must be one of mp3, opus"):
        FfmpegCodec("flac", 100)
    for kind, (least, most) in LOSSY_KBPS.items():
        for kbps in (least - 1, most + 1, 0, float("nan")):
            with pytest.raises(ValueError, match=f"{kind}:{kbps:g}.*{least} to"):
                FfmpegCodec(kind, kbps)
    codec = FfmpegCodec("opus", 12)
    with pytest.raises(ValueError, match="mono"):
        codec.roundtrip(torch.zeros(1, 2, 100))
    with pytest.raises(ValueError, match="0 samples"):
        codec.roundtrip(torch.zeros(1, 1, 0))
    with pytest.raises(ValueError, match="NaN"):
        codec.roundtrip(torch.full((1, 1, 100), float("nan")))


@pytest.mark.parametrize("rate", MP3_KBPS)
def test_mp3_runs_at_the_rate_of_the_audio(rate: int) -> None:
    """At the lowest and the highest bitrate that it has there: exact, and without delay."""
    noise = pink_noise(rate, 0)
    for kbps in (MP3_KBPS[rate][0], MP3_KBPS[rate][-1]):
        codec = FfmpegCodec("mp3", kbps, audio_rate=rate)
        assert codec.spec.sample_rate == rate and codec.spec.hop_length == 576
        packets, _ = codec.coder.packets(noise.numpy())
        seconds = len(packets) * (576 if rate < 32000 else 1152) / rate
        assert sum(map(len, packets)) * 8 / seconds == pytest.approx(1000 * kbps, rel=0.02)
        delay = delay_between(noise, codec.roundtrip(noise[None, None])[0, 0], 2000)
        assert delay.is_known and delay.samples == 0


@pytest.mark.parametrize(
    ("kbps", "audio_rate", "rate"),
    [
        (24, 16000, 16000),
        (12, 16000, 16000),
        (24, 44100, 22050),  # 44.1 kHz has no 24 kbps
        (320, 16000, 44100),  # 16 kHz has no 320 kbps
        (24, 96000, 22050),  # MP3 has no 96 kHz
        (24, None, 22050),
    ],
)
def test_the_rate_of_mp3_depends_on_audio_and_bitrate(kbps, audio_rate, rate) -> None:
    codec = load_roundtrip(f"mp3:{kbps}", audio_rate=audio_rate)
    assert codec.spec.sample_rate == rate and codec.spec.name == f"mp3:{kbps}"
    assert load_roundtrip("opus:24", audio_rate=audio_rate).spec.sample_rate == 48000
