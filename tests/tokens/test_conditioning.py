"""Conditioning features."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.spec import CodecSpec
from tokgen.tokens import conditioning
from tokgen.tokens.conditioning import Conditioning, ConditioningSettings

SETTINGS = ConditioningSettings(16000, 320)
MFCC = Conditioning(SETTINGS)


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(1, 1, n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [1, 319, 320, 321, 640, 16000, 20481])
def test_frames_are_ceil_of_hops(n: int) -> None:
    out = MFCC(noise(n))
    assert out.shape == (1, 30, -(-n // 320))
    assert torch.isfinite(out).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40000), min_size=2, max_size=4))
def test_features_do_not_depend_on_batch_or_padding(lengths: list[int]) -> None:
    clips = [noise(n, seed) for seed, n in enumerate(lengths)]
    batch = torch.zeros(len(clips), 1, max(lengths))
    for row, clip in zip(batch, clips, strict=True):
        row[:, : clip.shape[-1]] = clip[0]
    together = MFCC(batch)
    for i, clip in enumerate(clips):
        alone = MFCC(clip)[0]
        assert torch.equal(together[i, :, : alone.shape[-1]], alone)


def test_frame_is_centred_on_its_hop() -> None:
    """An impulse in the middle of frame 10 is loudest there and equally loud on both sides."""
    clip = torch.zeros(1, 1, 20 * 320)
    clip[0, 0, 10 * 320 + 160] = 1.0
    level = MFCC(clip)[0, 0]
    assert int(level.argmax()) == 10
    torch.testing.assert_close(level[9], level[11], atol=1e-3, rtol=0)


def test_values_agree_with_torchaudio() -> None:
    """They equal torchaudio's mel spectrogram, logarithm and DCT of the same windows."""
    torchaudio = import_torchaudio()
    clip = noise(64 * 320)
    padded = torch.nn.functional.pad(clip[:, 0], (352, 352))
    mel = torchaudio.transforms.MelSpectrogram(
        16000,
        n_fft=1024,
        hop_length=320,
        n_mels=80,
        center=False,
        norm="slaney",
        mel_scale="slaney",
    )(padded)
    dct = torchaudio.functional.create_dct(30, 80, "ortho")
    expected = (mel.clamp(min=1e-8).log().mT @ dct).mT
    torch.testing.assert_close(MFCC(clip), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("rate", "hop", "n_fft"), [(16000, 320, 1024), (48000, 640, 4096)])
def test_settings_follow_the_codec(rate: int, hop: int, n_fft: int) -> None:
    chosen = ConditioningSettings.for_codec(CodecSpec("x", rate, hop, 8, 1024))
    assert (chosen.sample_rate, chosen.hop_length, chosen.n_fft) == (rate, hop, n_fft)
    assert chosen.n_mfcc == 30


CHUNKED = CodecSpec("x", 16000, 320, 8, 1024, chunk_length=16000, chunk_stride=15840)


@pytest.mark.parametrize("n", [1, 15840, 15841, 16000, 40000])
def test_chunks_have_their_own_features(n: int) -> None:
    """There is one vector per codec frame, and neighbouring chunks do not change it."""
    mfcc = Conditioning(ConditioningSettings.for_codec(CHUNKED))
    clip = noise(n)
    out = mfcc(clip)
    assert out.shape == (1, 30, CHUNKED.n_frames(n))
    for i in range(CHUNKED.n_chunks(n)):
        chunk = torch.zeros(1, 1, 16000)
        piece = clip[..., i * 15840 : i * 15840 + 16000]
        chunk[..., : piece.shape[-1]] = piece
        assert torch.equal(out[..., i * 50 : (i + 1) * 50], MFCC(chunk))
    batch = torch.cat([torch.nn.functional.pad(clip, (0, 9000)), noise(n + 9000, 1)])
    assert torch.equal(mfcc(batch)[:1, :, : out.shape[-1]], out)


@pytest.mark.parametrize("spec", [CodecSpec("x", 16000, 320, 8, 1024), CHUNKED])
@pytest.mark.parametrize("kind", ["mfcc", "log_mel"])
def test_blocks_equal_the_whole(
    spec: CodecSpec, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equality is exact, for windows shorter and longer than the audio."""
    module = Conditioning(ConditioningSettings.for_codec(spec, kind))
    clip = noise(70001)
    whole = module(clip)
    for frames in (conditioning.WINDOW_FRAMES, 70):
        monkeypatch.setattr(conditioning, "WINDOW_FRAMES", frames)
        for size in (997, 16001, 70001):
            found = list(module.blocks(clip[0].split(size, dim=-1)))
            assert torch.equal(torch.cat(found, dim=-1), whole)
    assert len(found) > 1
    batch = torch.cat([clip, noise(70001, 1)])
    found = list(module.blocks(batch.split(9999, dim=-1)))
    assert torch.equal(torch.cat(found, dim=-1), module(batch))
    with pytest.raises(ValueError, match="NaN"):
        list(module.blocks([clip[0], torch.full((1, 5), float("nan"))]))


def test_no_window_skips_audio() -> None:
    """A codec with long hops gets a window that is at least as long."""
    assert ConditioningSettings.for_codec(CodecSpec("slow", 16000, 3200, 8, 1024)).n_fft >= 3200
    with pytest.raises(ValueError, match="raise n_fft"):
        ConditioningSettings(16000, 320, n_fft=256)
    with pytest.raises(ValueError, match="n_mfcc = 81"):
        ConditioningSettings(16000, 320, n_mfcc=81)


def test_bad_waveforms_are_refused() -> None:
    with pytest.raises(ValueError, match="mono"):
        MFCC(torch.zeros(1, 2, 320))
    with pytest.raises(ValueError, match="NaN"):
        MFCC(torch.full((1, 1, 320), float("nan")))
