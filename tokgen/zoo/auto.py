"""Register the codecs with transformers' Auto classes as soon as transformers imports those.

`config.json` names the network, `StftCodecModel`. The Auto classes return
`StftCodecForAudioTokenization`, which wraps it with the methods of transformers' codecs and saves
the same folder. This module does not import transformers, so `import tokgen` stays fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

from tokgen.imports import Execute, wrap_import

__all__ = ["register_codecs"]


def _register_config() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from tokgen.zoo.transformers_config import StftCodecConfig

    AutoConfig.register(StftCodecConfig.model_type, StftCodecConfig, exist_ok=True)


def _register_model() -> None:
    from transformers.models.auto import modeling_auto

    from tokgen.zoo.transformers_config import StftCodecConfig
    from tokgen.zoo.transformers_model import StftCodecForAudioTokenization

    _register_config()
    for name in ("AutoModel", "AutoModelForAudioTokenization"):  # older versions lack the second
        if auto := getattr(modeling_auto, name, None):
            auto.register(StftCodecConfig, StftCodecForAudioTokenization, exist_ok=True)


_STEPS: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_model,
}


def register_codecs() -> None:
    """Register the codecs now, or after transformers imports its Auto classes."""
    for name, step in _STEPS.items():
        if name in sys.modules:
            step()
        else:
            wrap_import(name, partial(_import_and_register, step))


def _import_and_register(step: Callable[[], None], execute: Execute, module: ModuleType) -> None:
    execute(module)
    step()
