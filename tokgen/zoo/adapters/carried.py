"""Run the causal layers of EnCodec and Mimi piece by piece, as if in one piece.

transformers has layers of the same form for both: convolutions that pad the past, transposed
convolutions that drop what lies beyond the end, residual blocks and LSTMs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Carried", "is_causal"]


class Carried:
    """Runs layers on the next piece of a sequence.

    Args:
        states: `after` of the piece before, if its layers were the same; empty starts a sequence.
    Attributes:
        after: what the layers need for the next piece.
    """

    def __init__(self, states: list[Any]) -> None:
        self._before, self.after = iter(states), list[Any]()

    def run(self, layers: Iterable[nn.Module], x: Tensor) -> Tensor:
        """Run a chain of layers on the next piece [1, C, n].

        Only the last piece may end within a frame. Reflect padding needs all that it mirrors in the
        first piece.
        """
        for layer in layers:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: Any, x: Tensor) -> Tensor:
        if hasattr(layer, "padding_total"):
            return self._convolution(layer, x)
        if hasattr(layer, "trim_right_ratio"):
            return self._transposed(layer, x)
        if hasattr(layer, "lstm"):
            steps = x.permute(2, 0, 1)
            out, state = layer.lstm(steps, next(self._before, None))
            self.after.append(state)
            return (out + steps).permute(1, 2, 0)
        if hasattr(layer, "block"):
            inner = self.run(layer.block, x)
            return self._layer(layer.shortcut, x) + inner
        return layer(x)

    def _convolution(self, layer: Any, x: Tensor) -> Tensor:
        n_past, missing = int(layer.padding_total), int(layer._get_extra_padding_for_conv1d(x))
        past = next(self._before, None)
        if past is None:
            padded = layer._pad1d(x, (n_past, missing), mode=layer.pad_mode)
        else:
            padded = layer._pad1d(torch.cat([past, x], -1), (0, missing), mode=layer.pad_mode)
        self.after.append(padded[..., padded.shape[-1] - missing - n_past :])
        return layer.conv(padded)

    def _transposed(self, layer: Any, x: Tensor) -> Tensor:
        kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        past = next(self._before, None)
        seen = x if past is None else torch.cat([past, x], -1)
        n_past = -(-(kernel - stride) // stride)
        self.after.append(seen[..., max(0, seen.shape[-1] - n_past) :])
        first = seen.shape[-1] - x.shape[-1]
        return layer.conv(seen)[..., first * stride : seen.shape[-1] * stride]


def is_causal(config: dict[str, Any]) -> bool:
    """Return whether a config.json of EnCodec or Mimi is of a network that never looks ahead."""
    return (
        bool(config.get("use_causal_conv", True))
        and config.get("trim_right_ratio", 1.0) == 1.0
        and config.get("norm_type", "weight_norm") == "weight_norm"
        and not config.get("normalize")
        and not config.get("chunk_length_s")
    )
