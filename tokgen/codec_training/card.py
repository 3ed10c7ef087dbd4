"""Facts about a codec's training, for the codec's card."""

from __future__ import annotations

from pathlib import Path

from tokgen.codec_training.crops import AudioCrops
from tokgen.codec_training.settings import SharedSettings
from tokgen.nn.cards import ModelCardFacts

__all__ = ["card_facts"]


def card_facts(
    settings: SharedSettings, crops: AudioCrops, *, base: str = "", licence: str = "", command: str
) -> ModelCardFacts:
    """Return data, base codec, licence and command of a training.

    Args:
        base: name of the codec that the training starts from.
        licence: licence of the weights; "" if the settings do not tell it.
    """
    names = [Path(name).name if Path(name).exists() else name for name in settings.corpora]
    return ModelCardFacts(
        corpus=", ".join(names),
        fingerprint=crops.fingerprint,
        hours=crops.seconds / 3600,
        base=base,
        licence=licence,
        command=command,
    )
