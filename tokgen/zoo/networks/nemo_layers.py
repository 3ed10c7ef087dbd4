"""Layers of NeMo's audio codecs: HiFi-GAN's residual blocks (Kong et al. 2020), up and down.

Names of the parameters are those of the published weights. Attributes `before` are frames or
samples of padding, which with reflection must be fewer than the input has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "Activation", "Conv", "ResidualBlock", "ResidualLayer", "UpConv"]

ACTIVATIONS = ("elu", "lrelu", "snake", "half_snake")


class _Snake(nn.Module):
    """x + sin²(αx) / α, with an α for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)


class _HalfSnake(nn.Module):
    """Snake in the first half of the channels, leaky ReLU in the second."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.n_snake = channels // 2
        self.snake_act = _Snake(self.n_snake)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, : self.n_snake], x[:, self.n_snake :]
        return torch.cat([self.snake_act(first), F.leaky_relu(second)], dim=1)


class Activation(nn.Module):
    """One of `ACTIVATIONS`."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        if name not in ACTIVATIONS:
            raise ValueError(f"activation {name!r} is unknown; use {', '.join(ACTIVATIONS)}")
        kinds: dict[str, Callable[[], nn.Module]] = {
            "elu": nn.ELU,
            "lrelu": nn.LeakyReLU,
            "snake": lambda: _Snake(channels),
            "half_snake": lambda: _HalfSnake(channels),
        }
        self.activation = kinds[name]()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x)


class Conv(nn.Module):
    """A convolution that keeps the length, or divides it by the stride.

    Args:
        in_channels, out_channels: see above.
        kernel_size: see above.
        stride: see above.
        dilation: see above.
        causal: all padding is before the input, and is zeros.
        pad_mode: "reflect" or "zeros", if not causal.
    Attributes:
        reflected: samples of reflection on either side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = False,
        pad_mode: str = "reflect",
    ) -> None:
        super().__init__()
        around = (
            (kernel_size - stride + 1) // 2 if stride > 1 else (kernel_size - 1) * dilation // 2
        )
        self.before = (kernel_size - 1) * dilation + 1 - stride if causal else 0
        self.reflected = around if pad_mode == "reflect" and not causal else 0
        self.conv = nn.Conv1d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=0 if causal else around,
            dilation=dilation,
            padding_mode="zeros" if causal else pad_mode,  # type: ignore[arg-type]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.before, 0)) if self.before else x)


class UpConv(nn.Module):
    """A transposed convolution that multiplies the length by the stride."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, causal: bool, groups: int
    ) -> None:
        super().__init__()
        self.cut = stride if causal else 0
        self.conv = nn.ConvTranspose1d(
            in_channels,
            out_channels,
            2 * stride,
            stride,
            padding=0 if causal else (stride + 1) // 2,
            output_padding=0 if causal else stride % 2,
            groups=groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y[..., : y.shape[-1] - self.cut]


class ResidualBlock(nn.Module):
    """x + two convolutions of it, each after an activation."""

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        activation: str = "lrelu",
        causal: bool = False,
        pad_mode: str = "reflect",
    ) -> None:
        super().__init__()
        edge = {"causal": causal, "pad_mode": pad_mode}
        self.input_activation = Activation(activation, channels)
        self.skip_activation = Activation(activation, filters)
        self.input_conv = Conv(channels, filters, kernel_size, dilation=dilation, **edge)  # type: ignore[arg-type]
        self.skip_conv = Conv(filters, channels, kernel_size, **edge)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.input_conv(self.input_activation(x))
        return x + self.skip_conv(self.skip_activation(hidden))


class _Chain(nn.Module):
    """Residual blocks of several dilations, one after the other."""

    def __init__(self, blocks: Sequence[ResidualBlock]) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.res_blocks:
            x = block(x)
        return x


class ResidualLayer(nn.Module):
    """Mean of chains of residual blocks of several kernel sizes."""

    def __init__(
        self,
        channels: int,
        kernel_sizes: Sequence[int],
        dilations: Sequence[int],
        *,
        activation: str,
        causal: bool,
        pad_mode: str,
    ) -> None:
        super().__init__()

        def chain(kernel_size: int) -> _Chain:
            return _Chain(
                [
                    ResidualBlock(
                        channels,
                        channels,
                        kernel_size,
                        dilation=dilation,
                        activation=activation,
                        causal=causal,
                        pad_mode=pad_mode,
                    )
                    for dilation in dilations
                ]
            )

        self.res_blocks = nn.ModuleList(chain(size) for size in kernel_sizes)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [chain(x) for chain in self.res_blocks]
        return sum(outputs[1:], start=outputs[0]) / len(outputs)
