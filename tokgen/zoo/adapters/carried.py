"""Run the causal layers of EnCodec and Mimi piece by piece, as if in one piece.

transformers has layers of the same form for both: convolutions that pad the past, transposed
convolutions that drop what lies beyond the end, residual blocks and LSTMs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.windows import Conv
from tokgen.nn.dense import linear

__all__ = ["Carried", "geometry", "is_causal"]


class Carried:
    """Runs layers on the next piece of a sequence.

    Args:
        states: `after` of the piece before, if its layers were the same; empty starts a sequence.
        weights: is filled with the weights of the convolutions, in the form that they need; pass
            the same dictionary for every piece.
    Attributes:
        after: what the layers need for the next piece.
    """

    def __init__(self, states: list[Any], weights: dict[nn.Module, Tensor]) -> None:
        self._before, self.after, self._weights = iter(states), list[Any](), weights

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
            return x + self._recurrent(layer.lstm, x)
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
        conv = layer.conv
        how = (conv.bias, conv.stride, 0, conv.dilation, conv.groups)
        return F.conv1d(padded, self._weight(conv), *how)

    def _transposed(self, layer: Any, x: Tensor) -> Tensor:
        conv = layer.conv
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        past = next(self._before, None)
        seen = x if past is None else torch.cat([past, x], -1)
        n_past = -(-kernel // stride) - 1  # inputs that reach into the next outputs
        self.after.append(seen[..., max(0, seen.shape[-1] - n_past) :])
        first = seen.shape[-1] - x.shape[-1]
        if conv.groups > 1:
            weight = self._weight(conv)
            out = F.conv_transpose1d(seen, weight, conv.bias, stride, groups=conv.groups)
            return out[..., first * stride : seen.shape[-1] * stride]
        if conv not in self._weights:
            whole = F.pad(conv.weight.detach(), (0, (n_past + 1) * stride - kernel))
            self._weights[conv] = whole.flatten(1).T.contiguous()
        weight = self._weights[conv]
        # a product of matrices is up to 30 times as fast as conv_transpose1d for so few frames
        every = linear(seen[0].T, weight).unflatten(1, (-1, n_past + 1, stride))  # [t, C, R, s]
        every = F.pad(every, (0, 0, 0, 0, 0, 0, n_past - first, 0))
        t = x.shape[-1]
        late = [every[n_past - r : n_past - r + t, :, r] for r in range(n_past + 1)]
        out = sum(late[1:], start=late[0]).transpose(0, 1).flatten(1)[None]
        return out if conv.bias is None else out + conv.bias[:, None]

    def _recurrent(self, lstm: nn.LSTM, x: Tensor) -> Tensor:
        """Run an LSTM step by step: for few steps, `nn.LSTM` is slower on a CPU."""
        states = next(self._before, None) or [None] * lstm.num_layers
        self.after.append(states := list(states))
        out = []
        for step in x.unbind(-1):
            for i, state in enumerate(states):
                zeros = step.new_zeros(len(step), lstm.hidden_size)
                hidden, cell = state or (zeros, zeros)
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                of_x, of_hidden, bias_x, bias_h = (getattr(lstm, f"{name}_l{i}") for name in names)
                gates = linear(step, of_x, bias_x) + linear(hidden, of_hidden, bias_h)
                write, forget, value, show = gates.chunk(4, dim=-1)
                cell = forget.sigmoid() * cell + write.sigmoid() * value.tanh()
                step = show.sigmoid() * cell.tanh()
                states[i] = step, cell
            out.append(step)
        return torch.stack(out, dim=-1)

    def _weight(self, conv: nn.Module) -> Tensor:
        """Return the weight of a convolution, from `weights` if it is there."""
        if conv not in self._weights:
            self._weights[conv] = cast(Tensor, conv.weight).detach()
        return self._weights[conv]


def is_causal(config: dict[str, Any]) -> bool:
    """Return whether a config.json of EnCodec or Mimi is of a network that never looks ahead.

    An importance network does.
    """
    return (
        bool(config.get("use_causal_conv", True))
        and config.get("trim_right_ratio", 1.0) == 1.0
        and config.get("norm_type", "weight_norm") == "weight_norm"
        and not config.get("normalize")
        and not config.get("chunk_length_s")
        and config.get("importance") is None
    )


def geometry(layers: nn.Module) -> tuple[list[Conv], bool]:
    """Return the convolutions of a chain of layers, and True if any uses reflect padding."""
    found, mirrored = [], False
    convolutions: list[Any] = [layer for layer in layers.modules() if hasattr(layer, "causal")]
    for layer in convolutions:
        kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        dilation, transposed = layer.conv.dilation[0], hasattr(layer, "trim_right_ratio")
        total = dilation * (kernel - 1) + 1 - stride
        right = 0 if layer.causal else total // 2
        if transposed and layer.causal:
            right = math.ceil(total * layer.trim_right_ratio)
        found.append(Conv(kernel, stride, dilation, total - right, transposed))
        mirrored = mirrored or (not transposed and layer.pad_mode == "reflect")
    return found, mirrored
