"""Folders as codecs' authors publish them, with small random weights, and codecs loaded from them.

The weights are those of tokgen's networks, written with the names and the weight norm of the
published files.
"""

from __future__ import annotations

import io
import math
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.networks.alias_free import Snake, low_pass
from tokgen.zoo.networks.bigcodec import BigCodecModel
from tokgen.zoo.networks.esc import EscModel
from tokgen.zoo.networks.facodec import FaCodecModel
from tokgen.zoo.networks.nemo import NemoCodecModel
from tokgen.zoo.rebuilt.esc import _settings as esc_settings
from tokgen.zoo.rebuilt.nemo import _settings

__all__ = [
    "BIGCODEC",
    "ESC",
    "FACODEC",
    "NEMO",
    "REBUILT_CLOSED",
    "REBUILT_MAKERS",
    "bigcodec_checkpoint",
    "codec_in",
    "esc_weights",
    "facodec_checkpoints",
    "loud",
    "make_facodec",
    "make_nemo",
    "nemo_weights",
    "weight_norm",
    "write_bigcodec",
    "write_esc",
    "write_facodec",
    "write_nemo",
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


_MODULES = "nemo.collections.tts.modules.audio_codec_modules."
NEMO: dict[str, dict[str, Any]] = {
    "nemo-mel": {
        "sample_rate": 11025,
        "samples_per_frame": 256,
        "discriminator": {"_target_": "other"},
        "audio_encoder": {
            "_target_": f"{_MODULES}MultiBandMelEncoder",
            "mel_bands": [[0, 10], [10, 20]],
            "out_channels": 4,
            "hidden_channels": 8,
            "filters": 8,
            "mel_processor": {
                "_target_": f"{_MODULES}MelSpectrogramProcessor",
                "mel_dim": 20,
                "sample_rate": 11025,
                "win_length": 512,
                "hop_length": 256,
            },
        },
        "audio_decoder": {
            "_target_": f"{_MODULES}HiFiGANDecoder",
            "up_sample_rates": [8, 8, 4],
            "input_dim": 8,
            "base_channels": 16,
            "resblock_kernel_sizes": [3, 7],
        },
        "vector_quantizer": {
            "_target_": f"{_MODULES}GroupFiniteScalarQuantizer",
            "num_groups": 2,
            "num_levels_per_group": [8, 5, 5, 5],
        },
    },
    "nemo-nano": {
        "sample_rate": 11025,
        "samples_per_frame": 336,
        "audio_encoder": {
            "_target_": f"{_MODULES}HiFiGANEncoder",
            "down_sample_rates": [6, 7, 8],
            "encoded_dim": 6,
            "base_channels": 2,
            "resblock_dilation_sizes": [1],
            "resblock_kernel_sizes": [3, 7],
        },
        "audio_decoder": {
            "_target_": f"{_MODULES}CausalHiFiGANDecoder",
            "up_sample_rates": [8, 7, 6],
            "input_dim": 6,
            "base_channels": 16,
            "activation": "half_snake",
            "output_activation": "clamp",
            "resblock_kernel_sizes": [3, 7],
        },
        "vector_quantizer": {
            "_target_": f"{_MODULES}GroupFiniteScalarQuantizer",
            "num_groups": 2,
            "num_levels_per_group": [9, 8, 7],
        },
    },
}


def nemo_weights(name: str) -> dict[str, Tensor]:
    """Return small random weights as the checkpoint in a .nemo file holds them."""
    settings = {k: v for k, v in _settings(NEMO[name]).items() if k != "model_type"}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = NemoCodecModel(**settings)
        loud(model, gain=1.5)
        loud(model.audio_decoder, gain=0.7)
        for key, buffer in model.named_buffers():
            if key.endswith(".fb"):
                buffer.uniform_(0, 0.1)
    state = weight_norm(model.state_dict(), NEW)
    levels = torch.tensor(settings["levels"], dtype=torch.int32)
    for group in range(settings["n_codebooks"]):
        places = model.places.int().view(1, -1, 1)
        state[f"vector_quantizer.fsqs.{group}.dim_base_index"] = places
        state[f"vector_quantizer.fsqs.{group}.num_levels"] = levels.view(1, -1, 1)
    return state | {"discriminator.conv.weight": torch.zeros(2)}


def write_nemo(folder: Path, settings: Any, weights: Any) -> None:
    """Write a .nemo file, a tar of settings in YAML and a checkpoint."""
    checkpoint = io.BytesIO()
    torch.save(weights, checkpoint)
    text = settings if isinstance(settings, bytes) else yaml.safe_dump(settings).encode()
    with tarfile.open(folder / "codec.nemo", "w:") as archive:
        for name, content in (
            ("./model_config.yaml", text),
            ("./model_weights.ckpt", checkpoint.getvalue()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def make_nemo(name: str) -> Codec:
    """2 levels of 1000 or 504 entries; 11,025 Hz, hop 256 or 336."""
    return codec_in(lambda folder: write_nemo(folder, NEMO[name], nemo_weights(name)), name)


FACODEC = {
    "sample_rate": 16000,
    "strides": [8, 8, 5],
    "encoder_channels": 2,
    "decoder_channels": 16,
    "latent_dim": 256,  # the published code can have no other
    "n_levels": [1, 2, 3],
    "codebook_size": 64,
    "codebook_dim": 4,
    "timbre_layers": 4,
    "timbre_heads": 4,
    "timbre_width": 1024,
    "timbre_kernel": 5,
}


def facodec_checkpoints(**settings: int) -> dict[str, dict[str, Tensor]]:
    """Return small random weights as the two published files hold them."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = FaCodecModel(**FACODEC | settings)
        loud(model.encoder, gain=1.5)
        loud(model.decoder.quantizer)
        loud(model.decoder.model, gain=0.5)
    state = model.state_dict() | filters(model)
    state = weight_norm(state, without=("_codebook", "timbre"))
    prefixes = {"ns3_facodec_encoder.bin": "encoder.", "ns3_facodec_decoder.bin": "decoder."}
    files = {
        name: {key[len(prefix) :]: t for key, t in state.items() if key.startswith(prefix)}
        for name, prefix in prefixes.items()
    }
    files["ns3_facodec_decoder.bin"]["f0_predictor.heads.0.bias"] = torch.zeros(1)
    return files


def write_facodec(folder: Path, **settings: int) -> None:
    """Write the two published files."""
    for name, state in facodec_checkpoints(**settings).items():
        torch.save(state, folder / name)


def make_facodec() -> Codec:
    """6 levels of 64 entries; 16 kHz, hop 320, and a small transformer."""
    small = {"latent_dim": 16, "timbre_width": 8, "timbre_layers": 1}
    return codec_in(lambda folder: write_facodec(folder, **small), "facodec")


ESC: dict[str, Any] = {
    "in_freq": 96,
    "h_dims": [6, 8, 12],
    "max_streams": 3,
    "sr": 8000,
    "swin_heads": [2, 4],
    "mlp_ratio": 2.0,
    "group_size": 2,
    "codebook_size": 32,
    "codebook_dims": [6, 4, 4],
}  # under `model` in config.yaml


def esc_weights(**settings: Any) -> dict[str, Tensor]:
    """Return small random weights as model.pth holds them, under "model_state_dict"."""
    config = esc_settings(ESC | settings)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = EscModel(**{k: v for k, v in config.items() if k != "model_type"})
        loud(model)
        for name, weight in model.named_parameters():
            if "bias_table" in name:
                nn.init.normal_(weight)
    index = {
        name.replace("bias_table", "index"): torch.zeros(16, 16, dtype=torch.long)
        for name in model.state_dict()
        if "bias_table" in name
    }
    window = torch.hann_window(config["win_length"])
    return model.state_dict() | index | {"ft.window": window, "ift.window": window}


def write_esc(folder: Path, **settings: Any) -> None:
    """Write the two published files."""
    beside = {"step": 3, "best_perf": np.float64(0.5)}
    torch.save(beside | {"model_state_dict": esc_weights(**settings)}, folder / "model.pth")
    config = {"model_name": "csvq+swinT", "model": ESC | settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


REBUILT_MAKERS: dict[str, Callable[[], Codec]] = {
    "bigcodec": partial(codec_in, write_bigcodec, "bigcodec"),
    "esc": partial(codec_in, write_esc, "esc"),
    "facodec": make_facodec,
    **{name: partial(make_nemo, name) for name in NEMO},
}
# Those that do not expose their stages
REBUILT_CLOSED = {*NEMO, "esc", "facodec"}
