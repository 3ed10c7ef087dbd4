"""The three idempotence losses of Code Drift (O'Reilly et al., section IV).

With x' = f(x), the output of one encoding and decoding:

    enc    || f_e(x') - f_e(x) ||                    latents
    proj   || f_p f_e(x') - f_p f_e(x) ||            projected latents
    code   || f_p f_e(x') - f_dq f_q f_p f_e(x) ||   projected latents, codebook rows of the codes

Each is the Euclidean norm of a frame, averaged over frames. The quantizer is frozen, and the
gradient passes straight through it, so it reaches the encoder twice and the decoder once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.codec.stages import check_stages
from tokgen.codec.windows import fit_length
from tokgen.codec_training.settings import LOSSES

__all__ = ["Reencoded", "Reencoder", "distance"]


@dataclass
class Reencoded:
    """Results of a tuning pass.

    Attributes:
        waveforms: outputs of the passes, f(x), f(f(x)) ..., [B, 1, N] each.
        drift: idempotence loss, averaged over the passes.
        commitment_loss: of the first encoding.
        match: share of the first encoding's codes that the second one repeats.
    """

    waveforms: list[Tensor]
    drift: Tensor
    commitment_loss: Tensor
    match: Tensor


class Reencoder(nn.Module):
    """The module that tuning trains: a codec with its quantizer frozen.

    Args:
        codec: codec with open stages. Its weights are trained in place. It stays in eval mode,
            which turns off the quantizer's dropout of levels.
        loss, passes, hold_first: see `TuningSettings`. With several passes, the loss compares the
            encoding of each output f(x), f(f(x)) ... with the first encoding.
    Raises:
        ValueError: unknown loss, passes below 1, or a codec without open stages or quantizer.
    """

    def __init__(
        self, codec: Codec, loss: str = "code", passes: int = 1, *, hold_first: bool = False
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss {loss!r}: known are {', '.join(LOSSES)}")
        if passes < 1:
            raise ValueError(f"passes = {passes}: must be at least 1")
        self.codec, self.loss, self.passes = check_stages(codec), loss, passes
        self.hold_first = hold_first
        self.codec.prepare_training()
        self.model = codec.model.eval()
        quantizer = getattr(codec.model, "quantizer", None)
        if not isinstance(quantizer, nn.Module):
            raise ValueError(
                f"{codec.spec.name} has no quantizer module to freeze: tuning needs a codec with "
                "open stages (tokgen's STFT codec, DAC, EnCodec at 24 kHz)"
            )
        quantizer.requires_grad_(False)

    def train(self, mode: bool = True) -> Reencoder:
        """Keep eval mode: tuning does not drop levels."""
        return super().train(False)

    def forward(self, waveform: Tensor, drifted: int = 0) -> Reencoded:
        """Encode and decode a waveform repeatedly.

        Args:
            waveform: [B, 1, N].
            drifted: passes without gradient before the first one, so that the codec trains on
                audio that was encoded before.
        """
        codec, n_samples = self.codec, waveform.shape[-1]
        with torch.no_grad():
            for _ in range(drifted):
                quantized = codec.dequantize(codec.quantize(codec.encode_latents(waveform)))
                waveform = fit_length(codec.decode_latents(quantized), n_samples).float()
        first_latents = codec.encode_latents(waveform)
        first = latest = codec.quantize_through(first_latents)
        if self.loss == "code":
            target = codec.codebook_rows(first.codes).detach()
        else:
            target = first_latents if self.loss == "enc" else first.projected_latents
        if self.hold_first:
            target = target.detach()
        outputs, drifts, codes = [], [], []
        for n in range(self.passes):
            outputs.append(fit_length(codec.decode_latents(latest.quantized), n_samples))
            heard = outputs[-1]
            if n == 0 and self.hold_first:  # the same audio, without gradient to the first encoding
                heard = fit_length(codec.decode_latents(first.quantized.detach()), n_samples)
            latents = codec.encode_latents(heard)
            latest = codec.quantize_through(latents)
            codes.append(latest.codes)
            again = latents if self.loss == "enc" else latest.projected_latents
            drifts.append(distance(again, target))
        match = (codes[0] == first.codes).float().mean()
        drift = torch.stack(drifts).mean()
        return Reencoded(outputs, drift, first.commitment_loss, match)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance over the channels of [B, C, T], averaged over frames and items."""
    return torch.linalg.vector_norm((a - b).float(), dim=1).mean()
