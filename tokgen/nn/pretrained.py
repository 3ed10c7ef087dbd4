"""Models saved as `config.json` and `model.safetensors`."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def resolve_folder(name: str | Path, revision: str | None = None) -> Path:
    """Return the local folder of a saved model. A hub id is downloaded.

    Raises:
        FileNotFoundError: not a folder with a config.json, nor a hub model that can be reached.
    """
    folder = Path(name)
    if (folder / CONFIG).is_file():
        return folder
    if folder.is_dir():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: not a saved model")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.toml", "README.md"]
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{name!r} is neither a folder with a {CONFIG} nor a hub model that can be reached "
            f"({type(error).__name__})"
        ) from error


class Pretrained(nn.Module):
    """Base class of modules that can be saved and loaded.

    Args:
        config: the keyword arguments of the subclass's constructor.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Write config.json and model.safetensors.

        Args:
            folder: is created if it is missing.
            dtype: type of the saved floating-point weights; None keeps theirs.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": type(self).__name__, **self.config}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        state = {
            k: (v.to(dtype) if dtype and v.is_floating_point() else v).detach().cpu().contiguous()
            for k, v in self.state_dict().items()
        }
        save_file(state, str(folder / WEIGHTS), metadata={"format": "pt"})
        return folder

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> Self:
        """Load a model from a folder or a hub id, in float32 and in eval mode.

        Raises:
            ValueError: the config is of another class, has an unknown setting, or does not fit the
                weights.
        """
        folder = resolve_folder(name, revision)
        config = read_json(folder / CONFIG)
        if (found := config.pop("model_type", None)) != cls.__name__:
            raise ValueError(f"{folder}: config.json is of a {found!r}, not a {cls.__name__!r}")
        known = set(inspect.signature(cls.__init__).parameters) - {"self"}
        unknown = sorted(set(config) - known)
        if unknown:
            raise ValueError(f"{folder}: config.json has settings {cls.__name__} lacks: {unknown}")
        model = cls(**config)
        load_weights(model, folder)
        return model.eval()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of settings; raises ValueError if it holds none."""
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}, not settings")
    return settings


def load_weights(model: nn.Module, folder: Path, *, assign: bool = False) -> None:
    """Load model.safetensors in float32; raises ValueError if the weights do not fit."""
    try:
        state = load_file(str(folder / WEIGHTS))
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        model.load_state_dict(state, strict=True, assign=assign)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder}: weights do not fit config.json: {error}") from error


def hash_weights(model: nn.Module) -> str:
    """SHA-256 (hex) of a state dict: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def folder_name(path: str | Path) -> str:
    """Name of a folder, for a codec that is loaded from it."""
    return Path(path).resolve().name
