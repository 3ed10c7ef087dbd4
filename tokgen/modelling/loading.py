"""Load a token transformer of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from tokgen.hub import HubArguments
from tokgen.modelling.delay import DelayTransformer
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.transformer import TokenTransformer
from tokgen.nn.files import read_json
from tokgen.nn.hub import CONFIG, resolve_folder

__all__ = ["TRANSFORMERS", "load_transformer"]

TRANSFORMERS: dict[str, type[TokenTransformer]] = {
    "masked": MaskedTransformer,
    "delay": DelayTransformer,
}


def load_transformer(
    name: str | Path, revision: str | None = None, **hub: Unpack[HubArguments]
) -> TokenTransformer:
    """Load a token transformer from a folder or a hub id, of the kind that its config.json names.

    Args:
        name, revision, hub: as in `Pretrained.from_pretrained`.
    Returns:
        the model in float32 and in eval mode.
    Raises:
        FileNotFoundError: no such folder, and no such hub model in reach.
        ValueError: see `Pretrained.from_pretrained`.
    """
    found = read_json(resolve_folder(name, revision, **hub) / CONFIG).get("model_type")
    by_type = {kind.model_type: kind for kind in TRANSFORMERS.values()}
    kind = by_type.get(found, MaskedTransformer) if isinstance(found, str) else MaskedTransformer
    return kind.from_pretrained(name, revision, **hub)
