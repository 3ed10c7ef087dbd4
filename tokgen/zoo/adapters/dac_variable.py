"""DAC with an importance network, for a variable bitrate."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import DacConfig, DacModel

from tokgen.quantizers.variable import ImportanceNetwork

__all__ = ["VariableDac", "residual_levels"]


class VariableDac(DacModel):
    """`DacModel` with an `ImportanceNetwork`, whose arguments are `importance` in the config.

    A plain `DacModel` loads the same folder, and leaves the network out.
    """

    def __init__(self, config: DacConfig) -> None:
        super().__init__(config)
        channels = config.encoder_hidden_size * 2 ** len(config.downsampling_ratios)
        how: dict[str, Any] = config.importance  # type: ignore[attr-defined]
        self.importance = ImportanceNetwork(channels, **how)

    def encode_with_importance(
        self, waveform: Tensor, inside: Tensor | None = None, *, detach: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Encode whole frames.

        Args:
            waveform: [B, 1, T * hop].
            inside: as for `ImportanceNetwork`.
            detach: no gradient flows from the importance to the encoder.
        Returns:
            latents [B, D, T] and importance [B, T] in (0, 1).
        """
        encoder: Any = self.encoder
        x = encoder.conv1(waveform)
        for block in encoder.block:
            x = block(x)
        importance = self.importance(x.detach() if detach else x, inside)
        return encoder.conv2(encoder.snake1(x)), importance


def residual_levels(quantizer: nn.Module) -> list[Any]:
    """Return the levels of a `DacResidualVectorQuantizer` for `quantize_levels`."""
    levels: Any = quantizer.quantizers
    return [_Level(level) for level in levels]


class _Level:
    """A `DacVectorQuantize` on frames [B, T, D], as a `FactorizedQuantizer`."""

    def __init__(self, level: Any) -> None:
        self._level, self.codebook = level, level.codebook

    def in_proj(self, residual: Tensor) -> Tensor:
        return self._level.in_proj(residual.mT).mT

    def lookup(self, projected: Tensor) -> Tensor:
        return self._level.decode_latents(projected.mT)[1]

    def out_proj(self, projected: Tensor) -> Tensor:
        return self._level.out_proj(projected.mT).mT
