"""ESC (Gu and Diao 2024, "Efficient Speech Coding"): 18 levels of 1024 entries at 50 Hz, 16 kHz.

It loads from a folder with `model.pth` and `config.yaml`, the files that its authors' scripts read.
Networks of attention run; those of convolutions, which are ablations of the paper, do not.

Levels are in the order of the streams, coarsest first, and inside a stream in the order of the
groups of its product quantizer: with three groups, level 3 * s + g is group g of stream s. So the
first levels are the first streams, with the codes that the codec gives for fewer streams. A
bitrate selects whole streams. If the last stream is not whole, `decode` uses zeros for its missing
groups.

Audio is padded with zeros to whole frames. The published code runs for some lengths only, and
returns 80 samples less than the frames span; this codec returns all. The shape of the features,
which the published code needs for decoding, follows from the number of frames.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from tokgen.codec.batches import encode_each
from tokgen.codec.spec import Encoded, Side
from tokgen.codec.windows import fit_length
from tokgen.nn.files import brief, shorten
from tokgen.nn.torch_files import open_checkpoint, tensors_of
from tokgen.zoo.loading import choose_bandwidth
from tokgen.zoo.networks.esc import EscModel
from tokgen.zoo.rebuilt.loading import RebuiltCodec, parse_yaml

__all__ = ["CHECKPOINT", "SETTINGS", "Esc"]

CHECKPOINT = "model.pth"
SETTINGS = "config.yaml"
_DEFAULTS: dict[str, Any] = {
    "in_dim": 2,
    "in_freq": 192,
    "h_dims": [45, 72, 96, 144, 192, 384],
    "max_streams": 6,
    "win_len": 20,
    "hop_len": 5,
    "sr": 16000,
    "patch_size": [3, 2],
    "swin_heads": [3, 6, 12, 24, 24],
    "swin_depth": 2,
    "window_size": 4,
    "mlp_ratio": 4.0,
    "overlap": 2,
    "group_size": 3,
    "codebook_size": 1024,
    "codebook_dims": [8, 8, 8, 8, 8, 8],
    "l2norm": True,
    "backbone": "transformer",
    "kernel_size": [5, 2],
    "conv_depth": 1,
}  # of the published class
_KEPT = (
    "in_freq",
    "h_dims",
    "patch_size",
    "swin_heads",
    "swin_depth",
    "window_size",
    "mlp_ratio",
    "overlap",
    "group_size",
    "codebook_size",
    "codebook_dims",
    "l2norm",
)  # settings with the same name in tokgen's network
_WEIGHTS = "model_state_dict"
_WINDOW = "ft.window"
_NOT_USED = (_WINDOW, "ift.window", ".relative_position_index")  # follow from the settings


class Esc(RebuiltCodec):
    """ESC as a `Codec`."""

    model: EscModel
    network = EscModel
    whole_reason = "is run over whole utterances, as by its authors"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        rate, groups = config["sample_rate"], config["group_size"]
        hop_length = config["hop_length"] * config["patch_size"][1] * config["overlap"]
        bits = groups * math.log2(config["codebook_size"])
        streams = range(1, len(config["h_dims"]) + 1)
        kbps = [round(n * bits * rate / hop_length / 1000, 6) for n in streams]
        n_streams = kbps.index(choose_bandwidth(kbps, bandwidth)) + 1
        return {
            "sample_rate": rate,
            "hop_length": hop_length,
            "n_codebooks": n_streams * groups,
            "codebook_size": config["codebook_size"],
        }

    @classmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        path = folder / SETTINGS
        with path.open("rb") as file:
            found = parse_yaml(file, path.stat().st_size, str(path)).get("model")
        try:
            return _settings(found)
        except (IndexError, KeyError, OverflowError, TypeError) as error:
            raise ValueError(f"{path}: a setting is wrong: {brief(error)}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def read_weights(cls, folder: Path) -> tuple[dict[str, Tensor], Path, str]:
        path = folder / CHECKPOINT
        found = open_checkpoint(path, ignore=("numpy",))  # beside the weights: the best score
        if isinstance(found, dict) and _WEIGHTS in found:
            found = found[_WEIGHTS]
        state = tensors_of(found, str(path))
        window, size = state.get(_WINDOW), cls.read_published(folder)["win_length"]
        if window is not None and window.shape != (size,):
            raise ValueError(
                f"{path}: {_WINDOW} has shape {tuple(window.shape)}, but {SETTINGS} makes windows "
                f"of {size} samples"
            )
        kept = {k: v for k, v in state.items() if not k.endswith(_NOT_USED)}
        return {k: v.float() for k, v in kept.items()}, path, SETTINGS

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_streams = self.spec.n_codebooks // self.model.config["group_size"]

        def encode(audio: Tensor) -> Encoded:
            whole = self.spec.n_frames(audio.shape[-1]) * self.spec.hop_length
            return Encoded(self.model.encode(fit_length(audio, whole), n_streams))

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(codes)


def _settings(given: Any) -> dict[str, Any]:
    """Return the settings of tokgen's network for those of the published class."""
    if not isinstance(given, dict):
        raise ValueError("it has no settings under `model`: it is not ESC's")
    unknown = sorted(set(given) - set(_DEFAULTS), key=str)
    if unknown:
        raise ValueError(f"settings that tokgen does not know: {shorten(unknown)}")
    config = _DEFAULTS | given
    for name, wanted in (
        ("backbone", "transformer"),
        ("in_dim", 2),
        ("max_streams", len(config["h_dims"])),
    ):
        if config[name] != wanted:
            raise ValueError(f"{name} = {shorten(config[name])}: tokgen runs {wanted!r}")
    rate = config["sr"]
    return {
        "model_type": EscModel.model_type,
        "sample_rate": rate,
        "win_length": int(config["win_len"] * rate * 1e-3),
        "hop_length": int(config["hop_len"] * rate * 1e-3),
        **{name: config[name] for name in _KEPT},
    }
