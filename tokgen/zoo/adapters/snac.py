"""SNAC (Siuzdak et al. 2024, "Multi-Scale Neural Audio Codec") as its PyPI package runs it.

It needs the extra `snac`, and loads from a folder with the published config.json and
pytorch_model.bin, which is opened without running code, or from what `save_pretrained` wrote.

Its levels have different frame rates. `tokgen.codec.ragged` makes codes [B, K, T] of them at the
rate of the coarsest level: K = 7 at 24 kHz, where the published levels have strides 4, 2 and 1,
and K = 15 at 32 and 44 kHz.

The decoder adds noise. The package draws it anew in each call; here it is always the same, whatever
the batch, so equal codes give equal audio.

Networks with attention run on windows of 32 frames of the finest level. The package pads audio to
whole windows and codes the padding too. This codec keeps only the frames of the audio. Before
decoding, it fills the last window with the codes of silence. The whole utterance is coded in one
piece.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokgen.codec.batches import encode_each
from tokgen.codec.ragged import MISSING, RaggedLayout
from tokgen.codec.spec import CodecSpec, Encoded, Side
from tokgen.extras import require
from tokgen.nn.checks import building, check_count, check_finite, check_fit, check_settings
from tokgen.nn.files import WEIGHTS, read_header, read_json
from tokgen.nn.hub import CONFIG
from tokgen.nn.torch_files import header_of, open_checkpoint, tensors_of
from tokgen.zoo.loading import PretrainedCodec, refuse_bandwidth

__all__ = ["CHECKPOINT", "SETTINGS", "FixedNoise", "SnacCodec", "make_model"]

CHECKPOINT = "pytorch_model.bin"
SETTINGS: dict[str, Any] = {
    "sampling_rate": int,
    "encoder_dim": int,
    "encoder_rates": list[int],
    "latent_dim": int | None,
    "decoder_dim": int,
    "decoder_rates": list[int],
    "attn_window_size": int | None,
    "codebook_size": int,
    "codebook_dim": int,
    "vq_strides": list[int],
    "noise": bool,
    "depthwise": bool,
}  # type by name
_OPTIONAL = ("latent_dim",)  # derived from the others in published files
_SEED = 20240


class SnacCodec(PretrainedCodec):
    """`snac.SNAC` as a `Codec`.

    Attributes:
        layout: layout of its levels in the codes.
    """

    model: Any
    library = "snac"
    decoder_parts = ("decoder.",)
    whole_reason = "codes an utterance in one piece"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        layout = RaggedLayout(tuple(config["vq_strides"]))
        fine, back = math.prod(config["encoder_rates"]), math.prod(config["decoder_rates"])
        if fine != back:
            raise ValueError(
                f"encoder_rates make frames of {fine} samples, decoder_rates of {back}; they must "
                "agree"
            )
        return {
            "sample_rate": config["sampling_rate"],
            "hop_length": fine * layout.strides[0],
            "n_codebooks": layout.n_codebooks,
            "codebook_size": config["codebook_size"],
        }

    def __init__(self, model: Any, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        self.layout = RaggedLayout(tuple(model.vq_strides))
        _fix_noise(model.decoder)

    @classmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        """Return the settings in a published config.json, with the `model_type`."""
        return {"model_type": "snac", **read_json(folder / CONFIG)}

    @classmethod
    def config_of(cls, model: Any) -> dict[str, Any]:
        noisy = any(_is_noise(module) for module in model.decoder.modules())
        named = ("sampling_rate", "encoder_dim", "latent_dim", "decoder_dim", "attn_window_size")
        return {
            "model_type": "snac",
            **{name: getattr(model, name) for name in named},
            "encoder_rates": list(model.encoder_rates),
            "decoder_rates": list(model.decoder_rates),
            "codebook_size": model.codebook_size,
            "codebook_dim": model.codebook_dim,
            "vq_strides": list(model.vq_strides),
            "noise": noisy,
            "depthwise": model.decoder.model[0].groups > 1,
        }

    @classmethod
    def load_model(cls, folder: Path) -> Any:
        path, checkpoint = folder / CONFIG, folder / CHECKPOINT
        config = read_json(path)
        if (found := config.get("model_type", "snac")) != "snac":
            raise ValueError(f"{path} is of a {str(found)[:60]!r}, not a 'snac' model")
        missing = [key for key in SETTINGS if key not in config and key not in _OPTIONAL]
        if missing:
            raise ValueError(
                f"{path} lacks {', '.join(missing)}: copy them from the published file"
            )
        if checkpoint.is_file() and not (folder / WEIGHTS).is_file():
            state = tensors_of(open_checkpoint(checkpoint), str(checkpoint))
            header = header_of(state, checkpoint, CONFIG)
        elif not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(
                f"{folder} has no {WEIGHTS} or {CHECKPOINT}: download SNAC into a folder, as by "
                f"`hf download hubertsiuzdak/snac_24khz --local-dir snac`, and load the folder"
            )
        else:
            header = read_header(folder)
            state = load_file(str(header.path))
        settings = {key: config[key] for key in SETTINGS if key in config}
        check_settings(settings, SETTINGS, header)
        for name in ("encoder_rates", "decoder_rates", "vq_strides"):
            check_count(name, len(settings[name]), header)
        with building(header, config, meta=True):
            skeleton = make_model(settings)
        check_fit(skeleton.state_dict(), header)
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        check_finite(state, header.path)
        model = make_model(settings)
        model.load_state_dict(state)
        return model

    def save_model(self, folder: Path, dtype: torch.dtype | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(self.config_of(self.model), indent=2) + "\n")
        state = {
            k: (v.to(dtype) if dtype and v.is_floating_point() else v).detach().cpu().contiguous()
            for k, v in self.model.state_dict().items()
        }
        save_file(state, str(folder / WEIGHTS), metadata={"format": "pt"})

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Encoded:
            codes = self.layout.join(self.model.encode(audio))
            return Encoded(codes[..., : self.spec.n_frames(audio.shape[-1])])

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        quantized: Any = 0.0
        levels = self.layout.split(self._whole_windows(codes))
        for quantizer, level in zip(self.model.quantizer.quantizers, levels, strict=True):
            live = level != MISSING
            if live.any():
                rows = quantizer.out_proj(quantizer.decode_code(level.clamp(min=0)))
                rows = rows * live[:, None]
                quantized = quantized + rows.repeat_interleave(quantizer.stride, dim=-1)
        return self.model.decoder(quantized)

    def code_vectors(self) -> Tensor:
        rows = [quantizer.codebook.weight for quantizer in self.model.quantizer.quantizers]
        return torch.stack(self.layout.spread(rows))

    def _whole_windows(self, codes: Tensor) -> Tensor:
        """Return codes [B, k, T] with the codes of silence after them, up to a whole window."""
        coarse = self.layout.strides[0]
        size = math.lcm(coarse, self.model.attn_window_size or 1) // coarse
        n_missing = -codes.shape[-1] % size
        if not n_missing:
            return codes
        silence = torch.zeros(1, 1, size * self.spec.hop_length, device=codes.device)
        found = self.layout.join(self.model.encode(silence))[:, : codes.shape[1], -n_missing:]
        return torch.cat([codes, found.expand(len(codes), -1, -1)], dim=-1)


class FixedNoise(nn.Module):
    """SNAC's noise block with noise that is the same in every call and for every item.

    Args:
        linear: the layer that scales the noise.
        index: of the block, which selects its noise.
    """

    def __init__(self, linear: nn.Module, index: int) -> None:
        super().__init__()
        self.linear, self.index = linear, index

    def forward(self, x: Tensor) -> Tensor:
        rng = np.random.default_rng((_SEED, self.index))
        noise = torch.from_numpy(rng.standard_normal(x.shape[-1], dtype=np.float32))
        return x + noise.to(x) * self.linear(x)


def _is_noise(module: nn.Module) -> bool:
    return isinstance(module, FixedNoise) or type(module).__name__ == "NoiseBlock"


def _fix_noise(decoder: nn.Module) -> None:
    """Replace the noise blocks of a decoder; the names of its weights stay the same."""
    found = [name for name, module in decoder.named_modules() if _is_noise(module)]
    for index, name in enumerate(found):
        parent, _, child = name.rpartition(".")
        block: Any = decoder.get_submodule(name)
        setattr(decoder.get_submodule(parent), child, FixedNoise(block.linear, index))


def make_model(config: dict[str, Any]) -> Any:
    """Return the package's network for settings, with random weights."""
    package = require("snac", "snac")
    return package.SNAC(**{key: config[key] for key in SETTINGS if key in config}).eval()
