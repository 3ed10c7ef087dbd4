"""The kinds of discriminators: make a new one, and load a saved one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.codec_training.discriminators.msstft import MultiScaleStftDiscriminator
from tokgen.codec_training.settings import DISCRIMINATORS
from tokgen.nn.files import read_json
from tokgen.nn.hub import CONFIG

__all__ = ["AnyDiscriminator", "check_fits", "load_discriminator", "make_discriminator"]

AnyDiscriminator: TypeAlias = Discriminator | MultiScaleStftDiscriminator
_CLASSES: dict[str, type[AnyDiscriminator]] = dict(
    zip(DISCRIMINATORS, (Discriminator, MultiScaleStftDiscriminator), strict=True)
)


def make_discriminator(settings: str | Mapping[str, Any]) -> AnyDiscriminator:
    """Make a new discriminator.

    Args:
        settings: a kind, or the arguments of its class with the kind as `kind`; without it, the
            kind is "ensemble".
    Raises:
        ValueError: unknown kind or argument.
    """
    arguments = {"kind": settings} if isinstance(settings, str) else dict(settings)
    kind = arguments.pop("kind", DISCRIMINATORS[0])
    if kind not in _CLASSES:
        raise ValueError(f"discriminator {kind!r}: known are {', '.join(_CLASSES)}")
    known = list(inspect.signature(_CLASSES[kind].__init__).parameters)[1:]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(f"discriminator {kind} has no {unknown[0]!r}: it has {', '.join(known)}")
    return _CLASSES[kind](**arguments)


def load_discriminator(folder: str | Path) -> AnyDiscriminator:
    """Load a discriminator of any kind from a folder, in eval mode.

    Raises:
        FileNotFoundError: no discriminator there.
        ValueError: the folder holds another model, or a file is damaged.
    """
    found = read_json(Path(folder) / CONFIG).get("model_type")
    is_msstft = found == MultiScaleStftDiscriminator.model_type
    cls = MultiScaleStftDiscriminator if is_msstft else Discriminator
    return cls.from_pretrained(folder)


def check_fits(discriminator: AnyDiscriminator, n_channels: int, n_bandwidths: int) -> None:
    """Raise ValueError if a discriminator cannot judge a codec of these channels and bandwidths."""
    if discriminator.n_channels != n_channels:
        raise ValueError(
            f"the discriminator judges audio of {discriminator.n_channels} channels, but the codec "
            f"has {n_channels}: set discriminator to {{kind: msstft, channels: {n_channels}}}"
        )
    if discriminator.n_bandwidths not in (1, n_bandwidths):
        raise ValueError(
            f"the discriminator has {discriminator.n_bandwidths} bandwidths, but the codec "
            f"{n_bandwidths}: set the bandwidths of discriminator to 1 or {n_bandwidths}"
        )
