"""The architectures that can be trained, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokgen.codec_training.trainable import TrainableCodec, TrainableDac, TrainableStft
from tokgen.codec_training.trainable_continuous import TrainableContinuous
from tokgen.codec_training.trainable_encodec import TrainableEncodec
from tokgen.codec_training.trainable_offline import TrainableOffline
from tokgen.quantizers.settings import VariableSettings
from tokgen.zoo.names import find_in_zoo

__all__ = ["ARCHITECTURES", "load_into", "make_continuous", "make_trainable"]

ARCHITECTURES: dict[str, type[TrainableCodec]] = {
    "stft": TrainableStft,
    "dac": TrainableDac,
    "encodec": TrainableEncodec,
    "offline": TrainableOffline,
}


def make_trainable(
    architecture: str, config: dict[str, Any], variable: VariableSettings | None = None
) -> TrainableCodec:
    """Create a network of an architecture in `ARCHITECTURES` with the settings in `config`.

    Args:
        architecture, config: see above.
        variable: settings of a variable bitrate; None for a codec without one.
    Raises:
        ValueError: unknown architecture, or settings that cannot be trained.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture {architecture!r}: known are {', '.join(ARCHITECTURES)}")
    if variable is None:
        return ARCHITECTURES[architecture](**config)
    codec = ARCHITECTURES[architecture](variable=variable, **config)
    codec.freeze()
    return codec


def make_continuous(architecture: str, config: dict[str, Any], noise: float) -> TrainableCodec:
    """Create a network without a quantizer.

    Args:
        architecture, config: as for `make_trainable`.
        noise: as for `TrainableContinuous`.
    Raises:
        ValueError: an architecture that needs its quantizer.
    """
    if architecture != "stft":
        raise ValueError(
            f"architecture {architecture!r} with quantizer none: only stft trains without one"
        )
    return TrainableContinuous(noise, **config)


def load_into(trainable: TrainableCodec, source: str | Path) -> None:
    """Load the weights of a saved codec.

    Args:
        source: name in the zoo, folder or hub id.
    Raises:
        ValueError: the shapes of the weights differ.
    """
    folder = find_in_zoo(str(source)) or source
    saved = trainable.open_saved(folder)
    try:
        trainable.load_weights(trainable.weights_of(saved))
    except ValueError as error:
        config = saved.config if isinstance(saved.config, dict) else saved.config.to_diff_dict()
        raise ValueError(
            f"the weights in {folder} have other shapes than the settings; use the settings of "
            f"its config.json ({json.dumps(config)[:300]})"
        ) from error
