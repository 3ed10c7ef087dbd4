"""The architectures that can be trained."""

from __future__ import annotations

import pytest
import torch

from makers.audio import make_tone
from tokgen.codec_training.trainable import load_into, make_trainable
from tokgen.nn.spectral_losses import MultiScaleMel

TINY = {
    "n_fft": 640, "width": 24, "encoder_depth": 1, "decoder_depth": 1, "expansion": 2,
    "latent_dim": 16, "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
}  # fmt: skip
SMALL_DAC = {
    "encoder_hidden_size": 8, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4],
    "upsampling_ratios": [4, 2], "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
    "hidden_size": 32, "sampling_rate": 16000,
}  # fmt: skip


@pytest.mark.parametrize(("name", "config"), [("stft", TINY), ("dac", SMALL_DAC)])
def test_both_architectures_train_save_and_continue(name, config, tmp_path):
    torch.manual_seed(0)
    codec = make_trainable(name, config)
    audio = torch.cat([make_tone(0.5, s)[None] for s in range(4)])
    codec.fit_statistics(audio)
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
