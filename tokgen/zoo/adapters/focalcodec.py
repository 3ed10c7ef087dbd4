"""FocalCodec (Della Libera et al. 2025) as its own package runs it.

The package is in no registry: pip install 'focalcodec@git+https://github.com/lucadellalib/focalcodec.git'.
It needs nothing that tokgen does not install. Published hub ids and folders load as they are.

The network of one level takes 16 kHz; causal ones return 24 kHz. The spec has the output rate, and
input audio is resampled. WavLM's frames are 400 samples long, 320 apart, so the package gives one
frame less than the audio has, and less audio. This codec pads audio with zeros to whole frames and
80 samples more, so that every frame is there.

Every item is coded alone and in one piece, because the encoder attends over the whole utterance.
Causal checkpoints are run over whole utterances too, not as streams.
"""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokgen.audio.resampling import resample
from tokgen.codec.batches import encode_each
from tokgen.codec.spec import Encoded, Side
from tokgen.codec.windows import fit_length
from tokgen.nn.checks import building, check_finite, check_fit, check_settings, check_size
from tokgen.nn.files import WEIGHTS, read_header, read_json
from tokgen.nn.hub import CONFIG
from tokgen.nn.torch_files import header_of
from tokgen.zoo.loading import PretrainedCodec, refuse_bandwidth

__all__ = ["SETTINGS", "FocalCodec", "focalcodec_package"]

_PARTS = ("encoder", "compressor", "quantizer", "decompressor", "decoder")
SETTINGS: dict[str, Any] = {
    f"{part}_{what}": kind for part in _PARTS for what, kind in (("name", str), ("config", dict))
}  # type by name, of the published config.json
_INPUT_RATE = 16000
_STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of WavLM
_KERNELS = (10, 3, 3, 3, 3, 2, 2)
_DECODER_HOPS = {"Vocos": 320, "WaveNeXt": 480}  # defaults of the package
_CODEBOOK_SIZE = 4096  # default of the package


class FocalCodec(PretrainedCodec):
    """`focalcodec.FocalCodec` as a `Codec`."""

    model: Any
    library = "focalcodec"
    whole_reason = "attends over all of an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        decoder = config["decoder_name"]
        if config["encoder_name"] != "WavLM" or decoder not in _DECODER_HOPS:
            raise ValueError(
                f"encoder {config['encoder_name']!r} and decoder {decoder!r}: tokgen runs WavLM "
                f"with {' or '.join(_DECODER_HOPS)}"
            )
        compressor, decompressor = config["compressor_config"], config["decompressor_config"]
        factor = math.prod(compressor.get("downscale_factors", [1]))
        if math.prod(decompressor.get("upscale_factors", [1])) != factor:
            raise ValueError("upscale_factors and downscale_factors must have the same product")
        hop_in = math.prod(config["encoder_config"].get("strides", _STRIDES))
        hop_out = config["decoder_config"].get("hop_length", _DECODER_HOPS[decoder])
        return {
            "sample_rate": _INPUT_RATE * hop_out // hop_in,
            "hop_length": hop_out * factor,
            "n_codebooks": 1,
            "codebook_size": config["quantizer_config"].get("codebook_size", _CODEBOOK_SIZE),
        }

    @classmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        """Return the published config.json, with its `model_type`."""
        config = {k: v for k, v in read_json(folder / CONFIG).items() if k in SETTINGS}
        missing = sorted(set(SETTINGS) - set(config))
        if missing:
            raise ValueError(f"{folder / CONFIG} lacks {', '.join(missing)}")
        return {"model_type": "focalcodec", **config}

    @classmethod
    def config_of(cls, model: Any) -> dict[str, Any]:
        return {"model_type": "focalcodec"} | {name: getattr(model, name) for name in SETTINGS}

    @classmethod
    def load_model(cls, folder: Path) -> Any:
        network = focalcodec_package().FocalCodec
        config = {k: v for k, v in cls.read_published(folder).items() if k in SETTINGS}
        header = read_header(folder)
        check_settings(config, SETTINGS, header)
        with building(header, config, meta=True):
            skeleton = network(**config)
        check_size(skeleton, header)
        names = list(skeleton.state_dict())
        try:
            state = network._remap_state_dict(load_file(str(header.path)), names)
        except KeyError as error:
            raise ValueError(f"{folder}: weights do not fit {CONFIG}: they lack {error}") from error
        check_fit(skeleton.state_dict(), header_of(state, header.path, CONFIG))
        check_finite(state, header.path)
        model = network(**config)
        model.load_state_dict(state)
        return model.float().eval()

    def save_model(self, folder: Path, dtype: torch.dtype | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = {name: getattr(self.model, name) for name in SETTINGS}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        state = {
            k: (v.to(dtype) if dtype and v.is_floating_point() else v).cpu().contiguous()
            for k, v in self.model.state_dict().items()
        }
        save_file(state, str(folder / WEIGHTS), metadata={"format": "pt"})

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        frame, step = self._encoder_frame()

        def encode(audio: Tensor) -> Encoded:
            n_frames = self.spec.n_frames(audio.shape[-1])
            whole = fit_length(audio, n_frames * self.spec.hop_length)
            at_input = resample(whole[0, 0], self.spec.sample_rate, _INPUT_RATE)
            factor = math.prod(self.model.compressor_config.get("downscale_factors", [1]))
            needed = n_frames * factor * step
            if not self.model.encoder.causal:  # causal ones pad by themselves
                needed += frame - step
            return Encoded(self.model.sig_to_toks(fit_length(at_input, needed)[None])[:, None])

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.toks_to_sig(codes[:, 0])[:, None]

    def _encoder_frame(self) -> tuple[int, int]:
        """Return the samples that a frame of WavLM spans, and those between two frames."""
        config = self.model.encoder_config
        sizes = config.get("kernel_sizes", _KERNELS)
        span, step = 1, 1
        for size, stride in zip(sizes, config.get("strides", _STRIDES), strict=True):
            span += (size - 1) * step
            step *= stride
        return span, step


def focalcodec_package() -> Any:
    """Return the package focalcodec.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return import_module("focalcodec")
    except ModuleNotFoundError as error:
        url = "git+https://github.com/lucadellalib/focalcodec.git"
        raise ModuleNotFoundError(
            f"focalcodec is not installed: pip install 'focalcodec@{url}'", name="focalcodec"
        ) from error
