"""Models saved as `config.json` and `model.safetensors`."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack, get_type_hints

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tokgen
from tokgen.hub import HubArguments
from tokgen.nn.cards import ModelCardFacts, keep_card, read_card_text
from tokgen.nn.checks import building, check_finite, check_fit, check_settings
from tokgen.nn.eight_bits import expand_header, expand_weights
from tokgen.nn.files import WEIGHTS, WeightsHeader, read_header, read_json, shorten
from tokgen.nn.hashes import hash_saved, hash_weights
from tokgen.nn.hub import CONFIG, Pushable, resolve_folder
from tokgen.nn.shared import base_of

__all__ = [
    "NOT_SETTINGS",
    "LoadedCard",
    "Pretrained",
    "folder_name",
    "load_weights",
]

# Keys of config.json that are not arguments of the constructor.
NOT_SETTINGS = ("architectures", "tokgen_version", "transformers_version", "dtype", "torch_dtype")


class Pretrained(nn.Module, Pushable):
    """Base class of modules that can be saved, loaded and uploaded.

    Args:
        config: the keyword arguments of the subclass's constructor.
    Attributes:
        model_type: `model_type` in config.json; "" means the name of the class.
    """

    model_type: ClassVar[str] = ""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self._loaded_card = LoadedCard()

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype | None = None,
        card: ModelCardFacts | None = None,
    ) -> Path:
        """Write config.json, model.safetensors and a card.

        Without `card`, weights that are saved as they were loaded keep their card.

        Args:
            folder: is created if it is missing. A README.md that was written by hand is kept.
            dtype: type of the saved floating-point weights; None keeps theirs.
            card: facts for the card.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = type(self).__name__
        about = {"architectures": [name], "tokgen_version": tokgen.__version__}
        config = {"model_type": self.model_type or name, **about, **self.config}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        state = {
            k: (v.to(dtype) if dtype and v.is_floating_point() else v).detach().cpu().contiguous()
            for k, v in self.state_dict().items()
        }
        save_file(state, str(folder / WEIGHTS), metadata={"format": "pt"})
        saved = hash_saved(self.state_dict(), dtype)
        if card is not None or not self._loaded_card.keep(folder, saved):
            self.write_card(folder, card or ModelCardFacts())
        return folder

    def write_card(self, folder: str | Path, facts: ModelCardFacts) -> None:
        """Write README.md for a folder of this model. The base class writes none."""

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, **hub: Unpack[HubArguments]
    ) -> Self:
        """Load a model from a folder or a hub id, in float32 and in eval mode.

        Args:
            name: folder, or hub id "owner/name".
            revision: branch, tag or commit of a hub id; None means the main branch.
            hub: token, cache_dir, local_files_only and subfolder, see `tokgen.hub.HubArguments`.
        Raises:
            FileNotFoundError: no such folder, and no such hub model in reach.
            ValueError: a file is damaged, the config is of another class, has an unknown or wrong
                setting, or does not fit the weights, or a weight is not finite.
        """
        if revision is not None and Path(name).is_dir():
            raise ValueError(f"revision {revision!r}: only hub ids have revisions, not {name}")
        folder = resolve_folder(name, revision, **hub)
        config = read_json(folder / CONFIG)
        wanted = cls.model_type or cls.__name__
        found = config.pop("model_type", None)
        if found not in (wanted, cls.__name__):  # the latter is in older folders
            raise ValueError(f"{folder}: config.json is of a {shorten(found)}, not a {wanted!r}")
        config = {k: v for k, v in config.items() if k not in NOT_SETTINGS}
        known = set(inspect.signature(cls.__init__).parameters) - {"self"}
        unknown = sorted(set(config) - known)
        if unknown:
            raise ValueError(
                f"{folder}: config.json has settings {cls.__name__} lacks: {shorten(unknown)}"
            )
        header = read_header(folder)
        base = base_of(header.path)
        tensors = expand_header(header.tensors)
        if base is not None:
            tensors = expand_header(read_header(base.parent).tensors) | tensors
        header = replace(header, tensors=tensors)
        check_settings(config, get_type_hints(cls.__init__), header)
        with building(header, config, meta=True):
            skeleton = cls(**config)
        check_fit(skeleton.state_dict(), header)
        model = cls(**config)
        load_weights(model, header, base)
        model._loaded_card = LoadedCard.read(folder, model)
        return model.eval()


@dataclass(frozen=True)
class LoadedCard:
    """The README.md that a model was loaded with.

    Attributes:
        text: None if there was none.
        weight_hash: hash of the weights that it describes.
    """

    text: str | None = None
    weight_hash: str = ""

    @classmethod
    def read(cls, folder: Path, weights: nn.Module | str) -> LoadedCard:
        """Read a folder's card; `weights` is the model or its hash."""
        text = read_card_text(folder)
        if text is None:
            return cls()
        return cls(text, weights if isinstance(weights, str) else hash_weights(weights))

    def keep(self, folder: Path, weight_hash: str) -> bool:
        """Write the card if it describes weights of this hash, and return whether it does."""
        if self.text is None or weight_hash != self.weight_hash:
            return False
        keep_card(folder, self.text)
        return True


def load_weights(
    model: nn.Module, header: WeightsHeader, base: Path | None = None, *, assign: bool = False
) -> None:
    """Load model.safetensors in float32.

    Args:
        model: network that `check_fit` found to fit the header.
        base: file with the weights that it lacks, see `tokgen.nn.shared`.
        assign: replace the network's parameters, which may be on the meta device.
    Raises:
        ValueError: a weight is NaN or infinite.
    """
    shared = {} if base is None else expand_weights(load_file(str(base)))
    state = shared | expand_weights(load_file(str(header.path)))
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    check_finite(state, header.path)
    model.load_state_dict(state, strict=True, assign=assign)


def folder_name(path: str | Path) -> str:
    """Name of a folder, for a codec that is loaded from it."""
    return Path(path).resolve().name
