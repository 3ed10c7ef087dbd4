"""Open an existing token dataset to train on, with the codec that made it."""

from __future__ import annotations

from pathlib import Path

import torch

from tokgen.codec.base import Codec
from tokgen.tokens.columns import conditioning_column
from tokgen.tokens.dataset import TokenDataset, check_codec, load_tokens
from tokgen.tokens.splitting import with_test_split
from tokgen.zoo.recorded import codec_of

__all__ = ["open_training_tokens"]


def open_training_tokens(
    source: str | Path,
    codec: str | Path | Codec | None,
    conditioning: str | None,
    *,
    device: str | torch.device = "auto",
) -> tuple[TokenDataset, Codec]:
    """Open an existing token dataset to train on, and load the codec that made it.

    If the dataset has no test split, one is made (see `with_test_split`).

    Args:
        source: folder, URL or hub id, as for `load_tokens`.
        codec: the codec of the tokens; None loads the one that they name.
        conditioning: conditioning that the tokens must have, or None.
        device: device to load the codec on.
    Raises:
        FileNotFoundError: no such dataset or codec.
        ValueError: the tokens are of another codec, have another conditioning or none, or too few
            rows to make a split.
    """
    tokens = with_test_split(load_tokens(source))
    about = tokens.provenance
    found = codec_of(about.spec, codec, device=device)
    check_codec(about, found.spec)
    if about.rate is not None and found.rate is None:
        found = found.with_rate(level=about.level, bitrate=about.bitrate)
    has = conditioning_column(tokens.splits["train"])
    if conditioning is not None and has is None:
        raise ValueError(
            f"the tokens in {source} have no conditioning: tokenize with --conditioning "
            f"{conditioning}"
        )
    if conditioning is not None and has != conditioning:
        raise ValueError(
            f"the tokens in {source} have the conditioning {has}, not {conditioning}: set "
            f"conditioning to {has}"
        )
    return tokens, found
