"""Register the codecs with transformers' Auto classes as soon as transformers imports those.

This module does not import transformers, so `import tokgen` stays fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

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


class _AfterImport(MetaPathFinder):
    """Runs a step of `_STEPS` after its module is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _STEPS:
            return None
        others = (finder for finder in sys.meta_path if not isinstance(finder, _AfterImport))
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _STEPS[fullname]()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_codecs() -> None:
    """Register the codecs now, or after transformers imports its Auto classes."""
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
    for name, step in _STEPS.items():
        if name in sys.modules:
            step()
