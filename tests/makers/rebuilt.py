"""Folders as codecs' authors publish them, with small random weights, and codecs loaded from them.

The weights are those of tokgen's networks, written with the names and the weight norm of the
published files.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.networks.alias_free import Snake, low_pass
from tokgen.zoo.networks.bigcodec import BigCodecModel

__all__ = [
    "BIGCODEC",
    "REBUILT_MAKERS",
    "bigcodec_checkpoint",
    "codec_in",
    "loud",
    "weight_norm",
    "write_bigcodec",
]

G, V = "weight_g", "weight_v"
NEW = "parametrizations.weight.original0", "parametrizations.weight.original1"


def loud(model: nn.Module, seed: int = 1, gain: float = 1.0) -> None:
    """Draw weights that keep the level of the signal, so that codes vary."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Linear | nn.ConvTranspose1d | nn.Conv2d):
            fan = module.weight[0].numel()
            if isinstance(module, nn.ConvTranspose1d):
                fan = module.weight.shape[0] * 2  # a stride of half the kernel
            nn.init.normal_(module.weight, std=gain / math.sqrt(fan), generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.02, generator=generator)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)


def weight_norm(
    state: dict[str, Tensor], names: tuple[str, str] = (G, V), without: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Return a state dict with weight norm in place of the weights of convolutions and projections.

    Args:
        state: see above.
        names: of the norm and the direction.
        without: parts of the names of weights that stay as they are.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.endswith(".weight") or tensor.ndim < 2 or any(part in name for part in without):
            out[name] = tensor
            continue
        stem = name[: -len("weight")]
        norm = tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.ndim - 1))
        out[stem + names[0]], out[stem + names[1]] = norm, 3 * tensor
    return out


def filters(model: nn.Module) -> dict[str, Tensor]:
    """Return the fixed filters, which the published weights hold too."""
    taps = low_pass()[None, None]
    places = [name for name, module in model.named_modules() if isinstance(module, Snake)]
    ends = "upsample.filter", "downsample.lowpass.filter"
    return {f"{place}.{end}": taps.clone() for place in places for end in ends}


def codec_in(write: Callable[[Path], Any], name: str) -> Codec:
    """Return the codec of a folder that `write` fills."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        write(folder)
        return load_codec(folder)


BIGCODEC = {
    "sample_rate": 16000,
    "strides": [8, 8, 5],
    "encoder_channels": 2,
    "decoder_channels": 16,
    "dilations": [1, 3, 9],
    "encoder_lstm_layers": 2,
    "decoder_lstm_layers": 2,
    "bidirectional": False,
    "latent_dim": 8,
    "n_codebooks": 1,
    "codebook_size": 50,
    "codebook_dim": 4,
}


def bigcodec_checkpoint() -> dict[str, dict[str, Tensor]]:
    """Return small random weights as bigcodec.pt holds them."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = BigCodecModel(**BIGCODEC)
        loud(model, gain=1.5)
        loud(model.decoder.model, gain=0.5)
    state = model.state_dict() | filters(model)
    state = weight_norm(state, NEW, without=("_codebook", "lstm"))
    parts = {"CodecEnc": "encoder.", "generator": "decoder."}
    return {
        part: {name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)}
        for part, prefix in parts.items()
    }


def write_bigcodec(folder: Path) -> None:
    torch.save(bigcodec_checkpoint(), folder / "bigcodec.pt")


REBUILT_MAKERS: dict[str, Callable[[], Codec]] = {
    "bigcodec": partial(codec_in, write_bigcodec, "bigcodec"),
}
