"""The architectures that can be trained, by name, and trainings that start from a saved codec."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from tokgen.codec_training.settings import AUTO
from tokgen.codec_training.trainable import TrainableCodec, TrainableDac, TrainableStft
from tokgen.codec_training.trainable_continuous import TrainableContinuous
from tokgen.codec_training.trainable_encodec import TrainableEncodec
from tokgen.codec_training.trainable_mimi import TrainableMimi
from tokgen.codec_training.trainable_offline import TrainableOffline
from tokgen.nn.files import brief
from tokgen.nn.pretrained import NOT_SETTINGS
from tokgen.quantizers.settings import VariableSettings
from tokgen.runs.checks import closest
from tokgen.runs.deep_flags import merged
from tokgen.zoo.finding import FoundCodec, find_codec
from tokgen.zoo.networks.stft import StftCodecModel
from tokgen.zoo.transformers_loading import from_transformers

__all__ = ["ARCHITECTURES", "load_into", "make_continuous", "make_trainable", "open_trainable"]

ARCHITECTURES: dict[str, type[TrainableCodec]] = {
    "stft": TrainableStft,
    "dac": TrainableDac,
    "encodec": TrainableEncodec,
    "mimi": TrainableMimi,
    "offline": TrainableOffline,
}
# Architecture of each kind of codec folder
_OF_TYPE = {
    "tokgen_stft_codec": "stft",
    "tokgen_stft_autoencoder": "stft",
    "tokgen_offline_codec": "offline",
    "dac": "dac",
    "encodec": "encodec",
    "mimi": "mimi",
}
_CONFIGS = {"dac": "DacConfig", "encodec": "EncodecConfig", "mimi": "MimiConfig"}


def make_trainable(
    architecture: str,
    config: dict[str, Any],
    variable: VariableSettings | None = None,
    *,
    new: bool = True,
) -> TrainableCodec:
    """Create a network of an architecture in `ARCHITECTURES` with the settings in `config`.

    Args:
        architecture, config: see above.
        variable: settings of a variable bitrate; None for a codec without one.
        new: it trains from new weights, and not from those of a saved codec.
    Raises:
        ValueError: unknown architecture, or settings that cannot be trained.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture {architecture!r}: known are {', '.join(ARCHITECTURES)}")
    config = {k: v for k, v in config.items() if (k, v) != ("importance", None)}
    unknown = sorted(set(config) - _settings_of(architecture))
    if unknown:
        raise ValueError(
            f"model.{unknown[0]}: architecture {architecture} has no such setting"
            f"{closest(unknown[0], _settings_of(architecture))}"
        )
    try:
        if variable is None:
            codec = ARCHITECTURES[architecture](**config)
        else:
            codec = ARCHITECTURES[architecture](variable=variable, **config)
            codec.freeze()
    except (TypeError, StrictDataclassError) as error:
        raise ValueError(f"model: a setting has a wrong type: {brief(error)}") from error
    if new:
        codec.check_new()
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


def open_trainable(
    source: str | Path,
    changes: dict[str, Any] | None = None,
    variable: VariableSettings | None = None,
) -> TrainableCodec:
    """Open a saved codec to train it further, with its own architecture and settings.

    Args:
        source: name in the zoo, folder or hub id.
        changes: settings of its config.json to change, such as `quantizer_dropout`; a dict changes
            the values that it names. The shapes of the weights must stay.
        variable: as for `make_trainable`.
    Raises:
        FileNotFoundError: no codec of this name.
        ValueError: a codec that cannot be trained, an unknown setting, or one that changes shapes.
    """
    found, changes = find_codec(source), changes or {}
    architecture = _architecture_of(found)
    if architecture == "offline":
        return make_trainable("offline", {"codec": str(source), **changes})
    if found.adapter.model_type == "tokgen_stft_autoencoder":
        raise ValueError(
            f"start_from = {source} has no quantizer: set architecture stft, quantizer none and "
            "model to the settings of its config.json"
        )
    known = _settings_of(architecture)
    config = {k: v for k, v in found.config.items() if k in known}
    if found.config.get("importance") is not None and variable is None:
        raise ValueError(
            f"start_from = {source} has a variable bitrate: set quantizer variable to keep it"
        )
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(
            f"model.{unknown[0]}: {source} is a {found.adapter.class_name}, which has no such "
            "setting; model holds changes of its config.json, mostly {}"
        )
    whole = merged(config, changes, "model")
    codec = make_trainable(architecture, whole, variable, new=False)
    load_into(codec, source)
    return codec


def load_into(trainable: TrainableCodec, source: str | Path) -> None:
    """Load the weights of a saved codec.

    Args:
        source: name in the zoo, folder or hub id.
    Raises:
        ValueError: another kind of network, or the shapes of the weights differ.
    """
    found = find_codec(source)
    architecture = _architecture_of(found)
    if not isinstance(trainable, TrainableContinuous | ARCHITECTURES[architecture]):
        ours = type(trainable.model).__name__
        raise ValueError(
            f"start_from = {source} is a {found.adapter.class_name}, but these settings make a "
            f"{ours}: use --config recipes/train_codec.fine_tune.yaml, or set architecture auto "
            "and model {}"
        )
    saved = trainable.open_saved(found.folder)
    try:
        trainable.load_weights(trainable.weights_of(saved))
    except ValueError as error:
        config = saved.config if isinstance(saved.config, dict) else saved.config.to_diff_dict()
        raise ValueError(
            f"the weights in {found.folder} have other shapes than the settings; use the settings "
            f"of its config.json ({json.dumps(config)[:300]}), or architecture {AUTO}"
        ) from error


def _architecture_of(found: FoundCodec) -> str:
    """Return the architecture of a codec folder."""
    kind = found.adapter.model_type
    if kind not in _OF_TYPE:
        raise ValueError(
            f"{found.name} is a {found.adapter.class_name} of {found.adapter.library}, which "
            "cannot be trained here: tokgen trains its own STFT codec, transformers' DacModel and "
            "EncodecModel, the decoder of MimiModel and of codecs with an offline quantizer"
        )
    return _OF_TYPE[kind]


def _settings_of(architecture: str) -> set[str]:
    """Return the names of an architecture's settings."""
    if architecture in _CONFIGS:
        names = set(from_transformers(_CONFIGS[architecture])().to_dict())
        return names - {"model_type", *NOT_SETTINGS}
    network = TrainableOffline if architecture == "offline" else StftCodecModel
    return set(inspect.signature(network.__init__).parameters) - {"self", "importance"}
