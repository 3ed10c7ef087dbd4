"""Base class of the codecs whose published weights run in tokgen's own networks.

Their libraries are unmaintained, heavy, or in no package registry. A codec loads from a folder or
hub id with the published files, and `save_pretrained` writes it as config.json and
model.safetensors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, get_type_hints

import torch
from torch import Tensor

from tokgen.nn.checks import building, check_finite, check_fit, check_settings
from tokgen.nn.files import brief, read_json
from tokgen.nn.hub import CONFIG
from tokgen.nn.pretrained import NOT_SETTINGS, Pretrained
from tokgen.nn.torch_files import header_of
from tokgen.zoo.loading import PretrainedCodec
from tokgen.zoo.registry import PUBLISHED

__all__ = ["MAX_YAML_BYTES", "RebuiltCodec", "fold_weight_norm", "parse_yaml"]

MAX_YAML_BYTES = 1 << 20

_G, _V = "weight_g", "weight_v"
_ORIGINAL_G, _ORIGINAL_V = "parametrizations.weight.original0", "parametrizations.weight.original1"


class RebuiltCodec(PretrainedCodec):
    """A codec whose published weights run in a network of tokgen's.

    Attributes:
        network: class of the network.
    """

    library = "tokgen"
    published_files = PUBLISHED
    network: ClassVar[type[Pretrained]]

    @classmethod
    @abstractmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        """Return the settings of the network, and its `model_type`, for a published folder.

        Raises:
            ValueError: a file is damaged, or the settings are not those of a network that
                tokgen has.
        """

    @classmethod
    @abstractmethod
    def read_weights(cls, folder: Path) -> tuple[dict[str, Tensor], Path, str]:
        """Return the weights of a published folder, with the names of tokgen's network.

        Returns:
            the state dict, the file that it is from, and the name of the one with the settings.
        """

    @classmethod
    def load_model(cls, folder: Path) -> Any:
        path = folder / CONFIG
        if path.is_file() and read_json(path).get("model_type") == cls.network.model_type:
            return cls.network.from_pretrained(folder)
        config = {k: v for k, v in cls.read_published(folder).items() if k != "model_type"}
        state, weights, settings = cls.read_weights(folder)
        header = header_of(state, weights, settings)
        check_settings(config, get_type_hints(cls.network.__init__), header)
        with building(header, config, meta=True):
            skeleton = cls.network(**config)  # type: ignore[arg-type]
        check_fit(skeleton.state_dict(), header)
        check_finite(state, weights)
        model = cls.network(**config)  # type: ignore[arg-type]
        model.load_state_dict(state)  # copies, so no weight stays in the file
        return model.eval()

    @classmethod
    def config_of(cls, model: Any) -> dict[str, Any]:
        about = {"model_type": cls.network.model_type}
        return about | {k: v for k, v in model.config.items() if k not in NOT_SETTINGS}


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with plain weights in place of weight norm's, in either spelling.

    Weights in half precision become float32 first.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        for direction, norm in ((_V, _G), (_ORIGINAL_V, _ORIGINAL_G)):
            if name.endswith(f".{norm}"):
                break
            if name.endswith(f".{direction}"):
                stem = name[: -len(direction)]
                if stem + norm in state:
                    scale = state[stem + norm].float()
                    out[f"{stem}weight"] = torch._weight_norm(tensor, scale, 0)
                    break
        else:
            out[name] = tensor
    return out


def parse_yaml(file: IO[bytes], size: int, name: str) -> dict[str, Any]:
    """Return the settings of an open YAML file.

    Args:
        file: see above.
        size: bytes.
        name: of the file, for errors.
    Raises:
        ValueError: too large, damaged, or no mapping.
    """
    import yaml

    if size > MAX_YAML_BYTES:
        raise ValueError(f"{name} has {size} bytes, over {MAX_YAML_BYTES}")
    try:
        settings = yaml.safe_load(file.read())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{name} cannot be read: {brief(error)}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{name} holds a {type(settings).__name__}, not settings")
    return settings
