"""EnCodec with an importance network, for a variable bitrate."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from tokgen.quantizers.variable import ImportanceNetwork

__all__ = ["VariableEncodec"]


class VariableEncodec(EncodecModel):
    """`EncodecModel` with an `ImportanceNetwork`, whose arguments are `importance` in the config.

    Its feature is the output of the encoder's LSTM, the last layer before the final ELU and the
    final convolution. A plain `EncodecModel` loads the same folder, and leaves the network out.
    """

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__(config)
        channels = config.num_filters * 2 ** len(config.upsampling_ratios)
        how: dict[str, Any] = config.importance  # type: ignore[attr-defined]
        self.importance = ImportanceNetwork(channels, **how)

    def encode_with_importance(
        self, waveform: Tensor, *, detach: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Encode a waveform [B, C, N], or chunks.

        Args:
            detach: no gradient flows from the importance to the encoder.
        Returns:
            latents [B, D, T] and importance [B, T] in (0, 1).
        """
        layers: Any = self.encoder.layers
        x = waveform
        for layer in layers[:-2]:
            x = layer(x)
        return self.finish(x, detach=detach)

    def finish(self, feature: Tensor, *, detach: bool = False) -> tuple[Tensor, Tensor]:
        """Return the latents [B, D, T] and the importance [B, T] of the LSTM's output [B, C, T]."""
        importance = self.importance(feature.detach() if detach else feature)
        elu, last = self.encoder.layers[-2:]  # type: ignore[union-attr]
        return last(elu(feature)), importance
