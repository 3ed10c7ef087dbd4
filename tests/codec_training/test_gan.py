"""Codec training: losses, discriminators, phases, crops, and one learning check."""

import pytest
import torch

from makers.audio import make_tone
from tokgen.codec_training.adversarial_losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from tokgen.codec_training.augment import augment, loudness_lufs
from tokgen.codec_training.crops import AudioCrops, to_int16
from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.codec_training.phases import Phases, cooled
from tokgen.codec_training.trainable import load_into, make_trainable
from tokgen.corpus.listed import open_corpus
from tokgen.nn.ema import ema_update
from tokgen.nn.spectral_losses import MultiScaleMel, SpectralDistance

TINY = {
    "n_fft": 640, "width": 24, "encoder_depth": 1, "decoder_depth": 1, "expansion": 2,
    "latent_dim": 16, "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
}  # fmt: skip
SMALL_DAC = {
    "encoder_hidden_size": 8, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4],
    "upsampling_ratios": [4, 2], "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
    "hidden_size": 32, "sampling_rate": 16000,
}  # fmt: skip


@pytest.mark.parametrize("loss", [MultiScaleMel(16000), SpectralDistance()])
def test_distances_are_zero_for_equals_and_grow_with_noise(loss):
    clean = make_tone(0.5, 0)[None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    values = [loss(clean + a * noise, clean).item() for a in (0.0, 0.001, 0.01, 0.1)]
    assert values[0] == 0.0
    assert values == sorted(values) and values[1] > 0


def test_mel_ignores_polarity_and_spectral_distance_does_not():
    clean = make_tone(0.5, 1)[None]
    assert MultiScaleMel(16000)(-clean, clean).item() == pytest.approx(0, abs=1e-6)
    assert SpectralDistance()(-clean, clean).item() > 1


def test_drawn_mel_scales_are_unbiased():
    clean, other = make_tone(0.3, 0)[None], make_tone(0.3, 1)[None]
    full = MultiScaleMel(16000)(other, clean).item()
    drawn = MultiScaleMel(16000, scales_per_step=2)
    torch.manual_seed(0)
    mean = sum(drawn(other, clean).item() for _ in range(60)) / 60
    assert mean == pytest.approx(full, rel=0.15)
    assert drawn.eval()(other, clean).item() == pytest.approx(full)


def test_gan_losses_have_their_optimum_where_they_should():
    ones, zeros = [[torch.zeros(1), torch.ones(2, 1)]], [[torch.zeros(1), torch.zeros(2, 1)]]
    assert discriminator_loss(real=ones, fake=zeros) == 0
    assert discriminator_loss(real=zeros, fake=ones) == 2
    assert adversarial_loss(ones) == 0 and adversarial_loss(zeros) == 1
    assert feature_loss(ones, ones) == 0
    shifted = [[torch.full((1,), 2.0), torch.ones(2, 1)]]
    assert feature_loss(ones, shifted) == 2


def test_discriminators_see_neither_level_nor_offset():
    torch.manual_seed(0)
    critic = Discriminator(periods=[2, 3], period_channels=[4, 8], windows=[256], channels=4)
    audio = make_tone(0.2, 0)[None]
    outs = [critic(x) for x in (audio, 0.3 * audio, audio + 0.1)]
    assert len(outs[0]) == 3
    for other in outs[1:]:
        for a, b in zip(outs[0], other, strict=True):
            torch.testing.assert_close(a[-1], b[-1], atol=1e-4, rtol=1e-3)


def test_default_discriminators_have_dacs_layers():
    critic = Discriminator()
    features = critic(torch.randn(1, 1, 4096))
    assert [len(f) for f in features] == [6] * 5 + [5 * 5 + 1] * 3
    assert features[0][4].shape[1] == 1024


def test_discriminator_saves_and_loads(tmp_path):
    critic = Discriminator(periods=[2], period_channels=[4, 8], windows=[128], channels=2)
    critic.save_pretrained(tmp_path)
    again = Discriminator.from_pretrained(tmp_path)
    audio = torch.randn(1, 1, 1000)
    assert critic(audio)[0][-1].equal(again(audio)[0][-1])


def test_phases_follow_one_another():
    phases = Phases(steps=100, continuous_steps=20, decoder_steps=10, adversarial_start=50)
    flags = [(p.quantize, p.decoder_only, p.adversarial) for p in map(phases.at, (0, 19, 20, 29))]
    assert flags == [(False, False, False)] * 2 + [(True, True, False)] * 2
    assert phases.at(30).decoder_only is False and phases.at(50).adversarial
    assert (phases.at(30).start, phases.at(99).end) == (30, 100)
    with pytest.raises(ValueError, match="exceed steps = 10"):
        Phases(10, 8, 4, 0)


def test_rate_rises_and_falls_within_a_phase():
    phase = Phases(100, 0, 0, 1000).at(0)
    factors = [cooled(s, phase, warmup=10, cooldown=0.4) for s in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 == factors[59]
    assert factors[80] == pytest.approx(0.5) and factors[99] == 0.05


def test_average_follows_the_weights():
    average, current = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(average.weight)
    torch.nn.init.ones_(current.weight)
    ema_update(average, current, 0.75)
    assert average.weight.item() == 0.25
    ema_update(average, current, 0.0)
    assert average.weight.item() == 1.0


def test_crops_repeat_by_seed_and_step(tiny_corpus, tmp_path):
    crops = AudioCrops([open_corpus(tiny_corpus, split="train")], 16000, tmp_path)
    a = crops.batch(5, seed=1, batch_size=3, n_samples=800)
    assert a.shape == (3, 1, 800) and a.abs().max() <= 1
    again = AudioCrops([open_corpus(tiny_corpus, split="train")], 16000, tmp_path)
    assert again.batch(5, seed=1, batch_size=3, n_samples=800).equal(a)
    assert not again.batch(6, seed=1, batch_size=3, n_samples=800).equal(a)
    with pytest.raises(ValueError, match="shorten the crops"):
        crops.batch(0, seed=0, batch_size=1, n_samples=10**9)


def test_sixteen_bits_clip_and_round():
    assert to_int16(torch.tensor([-2.0, -1.0, 0.0, 0.5, 2.0])).tolist() == [
        -32768, -32768, 0, 16384, 32767,
    ]  # fmt: skip


def test_augmentation_changes_level_and_phase_only():
    audio = make_tone(0.5, 2)[None].repeat(3, 1, 1)
    g = torch.Generator().manual_seed(0)
    out = augment(audio, 16000, loudness=None, gain_db=6.0, phase=True, generator=g)
    ratio = out.square().mean((1, 2)) / audio.square().mean((1, 2))
    assert ((10 * ratio.log10()).abs() < 6.2).all() and ratio.std() > 0.05
    a, b = (torch.fft.rfft(x[0, 0]).abs() for x in (audio, out))
    torch.testing.assert_close(b[10:-10], a[10:-10] * ratio[0].sqrt(), rtol=2e-2, atol=0.5)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_loudness_of_the_standards_reference_tone(rate):
    t = torch.arange(rate) / rate
    tone = torch.sin(2 * torch.pi * 997 * t)[None, None]
    assert loudness_lufs(tone, rate).item() == pytest.approx(-3.01, abs=0.02)
    low = torch.sin(2 * torch.pi * 30 * t)[None, None]
    assert loudness_lufs(low, rate).item() < -8  # the high-pass of the second filter


def test_crops_are_brought_to_a_loudness_and_silence_stays_silent():
    audio = torch.cat([0.1 * make_tone(0.5, 2)[None], torch.zeros(1, 1, 8000)])
    g = torch.Generator().manual_seed(0)
    out = augment(audio, 16000, loudness=-23.0, gain_db=0.0, phase=False, generator=g)
    assert loudness_lufs(out, 16000)[0].item() == pytest.approx(-23, abs=0.01)
    assert out[1].eq(0).all()


@pytest.mark.parametrize(("name", "config"), [("stft", TINY), ("dac", SMALL_DAC)])
def test_both_architectures_train_save_and_continue(name, config, tmp_path):
    torch.manual_seed(0)
    codec = make_trainable(name, config)
    audio = torch.cat([make_tone(0.5, s)[None] for s in range(4)])
    codec.start_from(audio)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=3e-3)
    mel = MultiScaleMel(16000, windows=(256, 512), mels=(20, 40))
    losses = []
    for _ in range(30):
        out = codec(audio)
        assert out.waveform.shape == audio.shape
        loss = mel(out.waveform, audio) + 0.25 * out.commitment_loss + out.codebook_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    codec.eval().save(tmp_path)
    again = make_trainable(name, config)
    load_into(again, tmp_path)
    codes = codec.as_codec().encode(audio[:1])
    match = (again.eval().as_codec().encode(audio[:1]) == codes).float().mean()
    assert match > 0.9  # the STFT codec saves in half precision


def test_odd_strides_and_unknown_architectures_are_refused():
    odd = SMALL_DAC | {"downsampling_ratios": [2, 5], "upsampling_ratios": [5, 2]}
    with pytest.raises(ValueError, match=r"\[5\] are odd"):
        make_trainable("dac", odd)
    with pytest.raises(ValueError, match="architecture 'wave'"):
        make_trainable("wave", {})
    with pytest.raises(ValueError, match="continuous_steps=0"):
        make_trainable("dac", SMALL_DAC).init_quantizer(torch.zeros(1, 1, 160))
