"""EnCodec as audiocraft trains it, such as VoiceCraft's at 16 kHz (Peng et al. 2024).

It loads from a folder or hub id with VoiceCraft's `encodec_4cb2048_giga.th`, or another checkpoint
of audiocraft with a name `encodec_*.th`, and runs in transformers' `EncodecModel`. Sizes are read
from the weights. The rest is as in audiocraft's default settings, which VoiceCraft's codec has: it
looks ahead, pads with zeros, and does not normalise loudness.

The checkpoint also holds settings as objects of omegaconf. They are read past: no code runs.
`save_pretrained` writes a folder that transformers loads too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from tokgen.nn.checks import building, check_finite, check_fit, check_size
from tokgen.nn.files import brief
from tokgen.nn.torch_files import header_of, open_checkpoint, tensors_of
from tokgen.zoo.adapters.encodec import StagedEncodecCodec
from tokgen.zoo.registry import PUBLISHED
from tokgen.zoo.transformers_loading import from_transformers

__all__ = ["CHECKPOINTS", "AudiocraftCodec"]

CHECKPOINTS = "encodec_*.th"
_SAMPLE_RATE = 16000
_NAMES = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.conv(?:tr)?\.conv(?:tr)?\.", ".conv."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
)  # of audiocraft and transformers
_ENCODER, _DECODER = "encoder.layers.", "decoder.layers."
_WEIGHT = ".conv.parametrizations.weight.original1"
_SETTINGS = {
    "model_type": "encodec",
    "sampling_rate": _SAMPLE_RATE,
    "normalize": False,
    "chunk_length_s": None,
    "overlap": None,
    "use_causal_conv": False,
    "pad_mode": "constant",
    "norm_type": "weight_norm",
    "trim_right_ratio": 1.0,
}  # that weights do not tell


class AudiocraftCodec(StagedEncodecCodec):
    """A checkpoint of audiocraft's EnCodec as a `Codec`."""

    published_files = PUBLISHED

    @classmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        """Return the settings of transformers' network for the checkpoint in a folder.

        Raises:
            ValueError: the file is damaged, or not a checkpoint of EnCodec.
        """
        path = _checkpoint(folder)
        return _settings(_open(path), path)

    @classmethod
    def load_model(cls, folder: Path) -> Any:
        path = _checkpoint(folder)
        state = _open(path)
        settings = _settings(state, path)
        model_class = from_transformers(cls.model_class)
        config = model_class.config_class(**settings)
        header = header_of(state, path, "EnCodec")
        with building(header, settings, meta=True):
            skeleton = model_class(config)
        check_size(skeleton, header)
        check_fit(skeleton.state_dict(), header)
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        check_finite(state, path)
        model = model_class(config)
        model.load_state_dict(state)
        return model.eval()


def _checkpoint(folder: Path) -> Path:
    """Return the checkpoint in a folder."""
    found = sorted(folder.glob(CHECKPOINTS))
    if len(found) != 1:
        raise ValueError(
            f"{folder} has {len(found)} files {CHECKPOINTS}: give each checkpoint a folder of its "
            "own"
        )
    return found[0]


def _open(path: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, with the names of transformers."""
    parts = open_checkpoint(path, ignore=("omegaconf",))
    best = parts.get("best_state") if isinstance(parts, dict) else None
    if not isinstance(best, dict):
        raise ValueError(f"{path} has no best_state: it is not a checkpoint of audiocraft")
    state = tensors_of(best.get("model", best), f"{path}: best_state")
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return out


def _settings(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return the settings of transformers' network that has these weights."""

    def shape(name: str) -> tuple[int, ...]:
        return tuple(state[name].shape)

    def last_layer() -> int:
        places = [name[len(_ENCODER) :].split(".")[0] for name in state if _ENCODER in name]
        return max(int(place) for place in places)

    try:
        first, last = shape(f"{_ENCODER}0{_WEIGHT}"), shape(f"{_ENCODER}{last_layer()}{_WEIGHT}")
        block = shape(f"{_ENCODER}1.block.1{_WEIGHT}")
        down = [
            shape(f"{_ENCODER}{i}{_WEIGHT}")
            for i in range(1, last_layer())
            if f"{_ENCODER}{i}{_WEIGHT}" in state
        ]
        ratios = [size[-1] // 2 for size in down]
        n_residual = next(i for i in count() if f"{_ENCODER}{i + 1}.block.1{_WEIGHT}" not in state)
        levels = [name for name in state if re.fullmatch(r"quantizer.*\.codebook\.embed", name)]
        lstm = re.compile(re.escape(_ENCODER) + r"\d+\.lstm\.weight_ih_l\d+")
        entries, width = shape(levels[0])
        per_level = math.ceil(_SAMPLE_RATE / math.prod(ratios)) * math.log2(entries)
        return _SETTINGS | {
            "audio_channels": first[1],
            "num_filters": first[0],
            "kernel_size": first[-1],
            "last_kernel_size": last[-1],
            "hidden_size": last[0],
            "upsampling_ratios": ratios[::-1],
            "num_residual_layers": n_residual,
            "residual_kernel_size": block[-1],
            "compress": first[0] // block[0],
            "num_lstm_layers": sum(lstm.fullmatch(name) is not None for name in state),
            "use_conv_shortcut": f"{_ENCODER}1.shortcut{_WEIGHT}" in state,
            "codebook_size": entries,
            "codebook_dim": width,
            "target_bandwidths": [_kbps(per_level, k + 1) for k in range(len(levels))],
        }
    except (ArithmeticError, IndexError, KeyError, StopIteration, ValueError) as error:
        raise ValueError(f"{path} does not have the weights of EnCodec: {brief(error)}") from error


def _kbps(per_level: float, n_levels: int) -> float:
    """Return the bitrate of some levels in kbps, rounded up where rounding would lose a level."""
    kbps = round(n_levels * per_level / 1000, 6)
    return kbps if 1000 * kbps // per_level >= n_levels else round(kbps + 1e-6, 6)
