"""FACodec (Ju et al. 2024, "NaturalSpeech 3"): six levels of 1024 entries at 80 Hz, 16 kHz.

It loads from a folder or hub id with `ns3_facodec_encoder.bin` and `ns3_facodec_decoder.bin`, the
first version of the codec. Sizes are read from the weights.

Level 0 is prosody, 1 and 2 are content, 3 to 5 the rest. They are not one residual chain: prosody
and content both quantize the latents, and the rest quantizes what their sum leaves. The voice is
not in the codes: a speaker vector, the mean of features of all frames, is side information. So a
part of a file has another vector than the whole, and every item is encoded alone and in one piece.
Decoding codes with the vector of another file converts the voice.

Audio is padded with zeros to whole frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from tokgen.codec.batches import encode_each
from tokgen.codec.spec import Encoded, Side
from tokgen.codec.windows import fit_length
from tokgen.nn.files import brief
from tokgen.nn.torch_files import open_checkpoint, tensors_of
from tokgen.zoo.loading import refuse_bandwidth
from tokgen.zoo.networks.facodec import FaCodecModel
from tokgen.zoo.rebuilt.loading import RebuiltCodec, fold_weight_norm

__all__ = ["DECODER", "ENCODER", "SPEAKER", "FaCodec"]

ENCODER = "ns3_facodec_encoder.bin"
DECODER = "ns3_facodec_decoder.bin"
SPEAKER = "speaker"  # side information
_HEADS = 4  # of the published transformer
_USED = (
    "encoder.block.",
    "decoder.quantizer.",
    "decoder.model.",
    "decoder.timbre_encoder.layers.",
    "decoder.timbre_encoder.last_ln.",
    "decoder.timbre_linear.",
)  # other weights serve its training


class FaCodec(RebuiltCodec):
    """FACodec as a `Codec`."""

    model: FaCodecModel
    network = FaCodecModel
    decoder_parts = ("decoder.model.", "decoder.timbre_linear.")
    side_names: tuple[str, ...] = (SPEAKER,)
    whole_reason = "makes one speaker vector of an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        return {
            "sample_rate": config["sample_rate"],
            "hop_length": math.prod(config["strides"]),
            "n_codebooks": sum(config["n_levels"]),
            "codebook_size": config["codebook_size"],
        }

    @classmethod
    def read_published(cls, folder: Path) -> dict[str, Any]:
        state = _open(folder)
        try:
            return _settings(state)
        except (IndexError, KeyError) as error:
            raise ValueError(f"{folder} does not have FACodec's weights: {brief(error)}") from error

    @classmethod
    def read_weights(cls, folder: Path) -> tuple[dict[str, Tensor], Path, str]:
        return _open(folder), folder / DECODER, "FACodec"

    def side_length(self, name: str, n_samples: int) -> int:
        return self.model.config["latent_dim"]

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Encoded:
            whole = self.spec.n_frames(audio.shape[-1]) * self.spec.hop_length
            codes, speaker = self.model.encode(fit_length(audio, whole))
            return Encoded(codes, {SPEAKER: speaker})

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(codes, side[SPEAKER])


def _open(folder: Path) -> dict[str, Tensor]:
    """Return the weights that are used, without weight norm and without the fixed filters."""
    state: dict[str, Tensor] = {}
    for name, prefix in ((ENCODER, "encoder."), (DECODER, "decoder.")):
        path = folder / name
        tensors = tensors_of(open_checkpoint(path), str(path))
        state |= {prefix + key: tensor for key, tensor in tensors.items()}
    used = {k: v for k, v in state.items() if k.startswith(_USED) and not k.endswith(".filter")}
    return fold_weight_norm(used)


def _settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the settings of a network with these weights.

    Raises:
        KeyError: a weight is missing.
        ValueError: levels differ in their size, or the network is of another kind.
    """
    strides = []
    for i in count(1):
        down = state.get(f"encoder.block.{i}.block.4.weight")
        if down is None:
            break
        strides.append(down.shape[-1] // 2)
    levels = {k: v for k, v in state.items() if k.endswith("._codebook.weight")}
    sizes = {tuple(v.shape) for v in levels.values()}
    if len(sizes) != 1:
        raise ValueError(f"levels of sizes {sorted(sizes)}: tokgen runs FACodec with equal levels")
    (codebook_size, codebook_dim) = sizes.pop()
    layers = [k for k in state if k.endswith(".ffn.ffn_1.weight")]
    ffn = state["decoder.timbre_encoder.layers.0.ffn.ffn_1.weight"]
    return {
        "model_type": FaCodecModel.model_type,
        "sample_rate": 16000,
        "strides": strides,
        "encoder_channels": len(state["encoder.block.0.bias"]),
        "decoder_channels": len(state["decoder.model.0.bias"]),
        "latent_dim": state["decoder.model.0.weight"].shape[1],
        "n_levels": [
            sum(k.startswith(f"decoder.quantizer.{i}.") for k in levels) for i in range(3)
        ],
        "codebook_size": codebook_size,
        "codebook_dim": codebook_dim,
        "timbre_layers": len(layers),
        "timbre_heads": _HEADS,
        "timbre_width": ffn.shape[0],
        "timbre_kernel": ffn.shape[-1],
    }
