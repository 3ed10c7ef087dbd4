"""Tiny continuous codecs with random weights, one of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    PocketTTSAudioTokenizerConfig,
    PocketTTSAudioTokenizerModel,
    VibeVoiceAcousticTokenizerConfig,
    VibeVoiceAcousticTokenizerModel,
)

from makers.audio import RATE
from tokgen.codec.continuous import ContinuousCodec
from tokgen.zoo.adapters.continuous import PocketTtsContinuous, VibeVoiceContinuous
from tokgen.zoo.continuous import StftContinuous
from tokgen.zoo.networks.autoencoder import StftAutoencoder

TINY: dict[str, int] = {
    "sample_rate": RATE,
    "hop_length": 320,
    "n_fft": 640,
    "width": 16,
    "encoder_depth": 1,
    "decoder_depth": 1,
    "expansion": 2,
    "latent_dim": 8,
}  # settings of `StftAutoencoder`


def make_continuous(
    name: str = "tiny-continuous", seed: int = 0, **settings: int
) -> StftContinuous:
    """8 latents; 16 kHz, hop 320."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = StftAutoencoder(**(TINY | settings))
    return StftContinuous.from_model(model, name, licence="CC0-1.0")


def make_vibevoice() -> VibeVoiceContinuous:
    """6 latents; 24 kHz, hop 20."""
    config = VibeVoiceAcousticTokenizerConfig(
        hidden_size=6,
        num_filters=4,
        downsampling_ratios=[2, 2, 5],
        depths=[1, 1, 1, 2],
        ffn_expansion=2,
        layer_scale_init_value=0.5,
        initializer_range=0.2,
    )
    return VibeVoiceContinuous.from_model(_drawn(VibeVoiceAcousticTokenizerModel, config))


def make_pocket_tts() -> PocketTtsContinuous:
    """5 latents; 24 kHz, hop 24."""
    config = PocketTTSAudioTokenizerConfig(
        hidden_size=16,
        num_filters=4,
        upsampling_ratios=[3, 2],
        latent_stride=4,
        latent_dim=5,
        upsample_groups=16,
        num_hidden_layers=1,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        layer_scale_initial_scale=0.5,
        sliding_window=20,
    )
    return PocketTtsContinuous.from_model(_drawn(PocketTTSAudioTokenizerModel, config))


def _drawn(model: Callable[[Any], Any], config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return model(config)


CONTINUOUS: dict[str, Callable[[], ContinuousCodec]] = {
    "stft": make_continuous,
    "vibevoice": make_vibevoice,
    "pocket-tts": make_pocket_tts,
}
