"""The three idempotence losses of Code Drift (O'Reilly et al., section IV), and `margin`.

With x' = f(x), the output of one encoding and decoding:

    enc    || f_e(x') - f_e(x) ||                    latents
    proj   || f_p f_e(x') - f_p f_e(x) ||            projected latents
    code   || f_p f_e(x') - f_dq f_q f_p f_e(x) ||   projected latents, codebook rows of the codes

Each is the Euclidean norm of a frame, averaged over frames. The quantizer is frozen, and the
gradient passes straight through it, so it reaches the encoder twice and the decoder once: through
the output x', and through the target, the encoding of x. In `code`, the gradient of the target
passes from the codebook rows straight to the projected latents.

The loss `margin` is not in the paper. It asks for the codes themselves: the encoding of x' is
scored against every row of each codebook, and the loss is the cross entropy of the codes of x,
minus its value at a small margin. It is the loss of stable decoding (`tokgen.codec.stable`), with
the weights as variables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.codec.spec import Quantized
from tokgen.codec.stable.settings import StableDecoding
from tokgen.codec.stable.targets import CodeTargets
from tokgen.codec.stages import TUNABLE, check_stages, in_float32
from tokgen.codec.windows import fit_length
from tokgen.codec_training.settings import LOSSES, PAPER_LOSSES

__all__ = ["Reencoded", "Reencoder", "distance", "rotate"]


@dataclass
class Reencoded:
    """Results of a tuning pass.

    Attributes:
        waveforms: outputs of the passes, f(x), f(f(x)) ..., [B, 1, N] each.
        offsets: samples by which each output is moved against x, int64 [passes, B].
        drift: idempotence loss, averaged over the passes; 0 for the loss "none".
        commitment_loss: of the first encoding.
        match: share of the first encoding's codes that the second one repeats.
    """

    waveforms: list[Tensor]
    offsets: Tensor
    drift: Tensor
    commitment_loss: Tensor
    match: Tensor


class Reencoder(nn.Module):
    """The module that tuning trains: a codec with its quantizer frozen.

    With several passes, the loss compares the encoding of each output f(x), f(f(x)) ... with the
    first encoding.

    With shifts, each output is moved by some samples before it is encoded again. The frames then
    lie elsewhere, and no codec can find the codes of x. The target is the encoding of x moved
    alike, which is what a fresh encoding of the moved audio would choose: a codec that reaches it
    decodes the same audio in every pass, wherever the frames lie. Without shifts this is the loss
    above. The audio is rotated: what leaves at one end enters at the other, so nothing is lost, and
    the offsets add up. It costs one more encoding per pass.

    Args:
        codec: codec with open stages. Its weights are trained in place. It stays in eval mode,
            which turns off the quantizer's dropout of levels.
        loss, passes, detach_target, hold_first, freeze_encoder: see `TuningSettings`.
    Raises:
        ValueError: unknown loss, passes below 1, or a codec without open stages or quantizer.
    """

    def __init__(
        self,
        codec: Codec,
        loss: str = "code",
        passes: int = 1,
        *,
        detach_target: bool = False,
        hold_first: bool = False,
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__()
        if loss not in (*LOSSES, "none"):
            raise ValueError(f"loss {loss!r}: known are {', '.join(LOSSES)} and none")
        if passes < 1:
            raise ValueError(f"passes = {passes}: must be at least 1")
        self.codec, self.loss, self.passes = check_stages(codec), loss, passes
        self.hold_first, self.detach_target = hold_first, detach_target or hold_first
        self.codec.prepare_training(freeze_encoder=freeze_encoder)
        self.model = codec.model.eval()
        if loss == "margin" and codec.search_levels() is None:
            raise ValueError(
                f"loss 'margin': {codec.spec.name} does not expose its codebooks level by level; "
                f"use {', '.join(PAPER_LOSSES)}"
            )
        frozen = self.codec.quantizer_modules()
        if not frozen:
            raise ValueError(
                f"{codec.spec.name} has no quantizer module to freeze: name it in the codec's "
                f"quantizer_modules, or use {TUNABLE}"
            )
        if freeze_encoder:
            encoder = self.codec.encoder_modules()
            if not encoder:
                raise ValueError(
                    f"freeze_encoder: {codec.spec.name} has no encoder module to freeze; set it to "
                    "false, or name the module in the codec's encoder_modules"
                )
            frozen = [*frozen, *encoder]
        for module in frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Reencoder:
        """Keep eval mode: tuning does not drop levels."""
        return super().train(False)

    def forward(
        self, waveform: Tensor, drifted: int = 0, shifts: Tensor | None = None
    ) -> Reencoded:
        """Encode and decode a waveform repeatedly.

        Args:
            waveform: [B, 1, N].
            drifted: passes without gradient before the first one, so that the codec trains on
                audio that was encoded before.
            shifts: samples by which each item moves, int64 [drifted + passes, B]: in each of the
                drifted passes, which undo it, and before each encoding after the first. None for
                no moves.
        """
        codec, n_samples = self.codec, waveform.shape[-1]
        no_moves = torch.zeros(drifted + self.passes, len(waveform), dtype=torch.long)
        moves = no_moves if shifts is None else shifts
        with torch.no_grad():
            for move in moves[:drifted]:
                latents = codec.encode_latents(rotate(waveform, move))
                quantized = codec.dequantize(codec.quantize(latents))
                output = fit_length(codec.decode_latents(quantized), n_samples).float()
                waveform = rotate(output, -move)
        moves = moves[drifted:]
        first_latents = codec.encode_latents(waveform)
        first = latest = codec.quantize_through(first_latents)
        target, target_codes = self._target(first_latents, first), first.codes
        outputs, drifts, moved, match = [], [], waveform, waveform.new_zeros(())
        for n, move in enumerate(moves):
            outputs.append(fit_length(codec.decode_latents(latest.quantized), n_samples))
            heard = outputs[-1]
            if n == 0 and self.hold_first and first.quantized.requires_grad:
                # the same audio, without gradient to the first encoding
                heard = fit_length(codec.decode_latents(first.quantized.detach()), n_samples)
            if shifts is not None:
                heard, moved = rotate(heard, move), rotate(moved, move)
                target, target_codes = self._encode_target(moved)
            last = n + 1 == self.passes
            if last and n and self.loss == "none":
                break  # nothing needs this encoding
            unused = last and self.loss == "none"
            with torch.set_grad_enabled(torch.is_grad_enabled() and not unused):
                latents = codec.encode_latents(heard)
                latest = codec.quantize_through(latents)
            if n == 0:
                match = (latest.codes == target_codes).float().mean()
            if target is not None:
                drifts.append(distance(self._compared(latents, latest), target))
            elif self.loss == "margin":
                drifts.append(self._missing_margin(latents, target_codes))
        drift = torch.stack(drifts).mean() if drifts else waveform.new_zeros(())
        offsets = torch.cat([torch.zeros_like(moves[:1]), moves[:-1]]).cumsum(0)
        return Reencoded(outputs, offsets, drift, first.commitment_loss, match)

    def _encode_target(self, waveform: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the target of an encoding of x itself, and its codes."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_target):
            latents = self.codec.encode_latents(waveform)
            quantized = self.codec.quantize_through(latents)
        return self._target(latents, quantized), quantized.codes

    def _target(self, latents: Tensor, quantized: Quantized) -> Tensor | None:
        """Return what the encodings of the outputs are compared with, if it is a vector."""
        if self.loss in ("none", "margin"):
            return None
        target = self._compared(latents, quantized)
        if self.loss == "code":
            rows = self.codec.codebook_rows(quantized.codes).detach()
            if self.detach_target:
                return rows
            return target + (rows - target).detach()  # the gradient passes straight through
        return target.detach() if self.detach_target else target

    @in_float32
    def _missing_margin(self, latents: Tensor, codes: Tensor) -> Tensor:
        levels = self.codec.search_levels()
        assert levels is not None
        targets = CodeTargets(levels, codes)
        settings = StableDecoding()
        missing, _ = targets.compare(latents, settings.margin, settings.temperature)
        return missing.mean()

    def _compared(self, latents: Tensor, quantized: Quantized) -> Tensor:
        return latents if self.loss == "enc" else quantized.projected_latents


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance over the channels of [B, C, T], averaged over frames and items."""
    return torch.linalg.vector_norm(a.float() - b.float(), dim=1).mean()


def rotate(waveform: Tensor, samples: Tensor) -> Tensor:
    """Move each item of [B, 1, N] later by its number of `samples` [B]; the end comes first."""
    if not samples.any():
        return waveform
    pairs = zip(waveform, samples.tolist(), strict=True)
    return torch.stack([item.roll(n, -1) for item, n in pairs])
