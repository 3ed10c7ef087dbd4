"""The causal depth network in whole numbers, as streams use it.

    model = IntegerDepthNetwork.from_float(trained, [codes])   # codes [K, T] to set the ranges by
    counts = model(codes)                 # torch, all frames at once: int64 [B, K, T, V]
    stream = model.stream()               # NumPy, one code after another, with the same counts
    state = stream.start(n_levels)
    counts = stream.counts(state, level, frame[:level])
    state = stream.update(state, frame)

docs/entropy_model.md specifies the arithmetic for other implementations.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokgen.modelling.causal import CausalModel
from tokgen.modelling.causal_depth import CausalDepthNetwork
from tokgen.modelling.integer import (
    LARGEST,
    SCORE_BITS,
    SHIFTS,
    TABLE_BITS,
    TOTAL_BITS,
    Layer,
    clip,
    counts_of,
    power_table,
    quantize_layer,
)
from tokgen.nn.hashes import hash_weights

__all__ = ["IntegerDepthNetwork", "IntegerStream", "StreamState"]

_Integers = NDArray[np.int64]
_CODE = 127  # largest entry of the table of codes
_MARGIN = 2  # room above the largest activation seen


class IntegerDepthNetwork(CausalModel):
    """`CausalDepthNetwork` with integer weights, activations and counts.

    Args:
        n_codebooks, codebook_size, dim, hidden, dilations: those of the network that was quantized.
        taps, code_dim, level_hidden, head_dim, codec: the same.
        bits: bits of fraction of the activations.
    """

    model_type = "tokgen_integer_depth_network"
    codes: Tensor
    first: Tensor
    table: Tensor

    def __init__(
        self,
        *,
        n_codebooks: int,
        codebook_size: int,
        dim: int,
        hidden: int,
        dilations: Sequence[int],
        taps: int,
        code_dim: int,
        level_hidden: int,
        head_dim: int,
        bits: int,
        codec: dict[str, Any] | None = None,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__({**settings, "dilations": list(dilations)})
        self.dilations, self.taps, self.code_dim = tuple(dilations), taps, code_dim
        every, blocks = n_codebooks * code_dim, len(dilations)
        self._layers = {
            "to_time": (dim, every),
            "to_depth": (dim, every),
            "widen": (blocks, hidden, taps * dim),
            "narrow": (blocks, dim, hidden),
            "level_in": (n_codebooks, level_hidden, dim),
            "level_out": (n_codebooks, head_dim, level_hidden),
            "head": (n_codebooks, codebook_size, head_dim),
        }
        for name, shape in self._layers.items():
            self._add(f"{name}_weight", torch.int8, shape)
            self._add(f"{name}_bias", torch.int32, shape[:-1])
            self._add(f"{name}_shift", torch.uint8, shape[:-1])
        self._add("codes", torch.int8, (n_codebooks, codebook_size, code_dim))
        self._add("first", torch.int16, (dim,))
        self._add("table", torch.int32, (1 << SCORE_BITS,))

    def _add(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
        self.register_buffer(name, torch.zeros(*shape, dtype=dtype))

    @classmethod
    def from_float(cls, model: CausalDepthNetwork, sample: Iterable[Tensor]) -> Self:
        """Quantize a trained network.

        Args:
            model: the network.
            sample: codes int64 [K, T] of some clips. The activations get as many bits of fraction
                as leave room for twice the largest one seen.
        Raises:
            ValueError: the activations are too large for any number of bits, or a weight is too
                large for 8 bits.
        """
        largest = max(model.largest_activation(c[None]) for c in sample if c.shape[-1])
        bits = math.floor(math.log2(LARGEST / (_MARGIN * largest)))
        if bits < 1:
            raise ValueError(
                f"activations reach {largest:.0f}, but must stay below {LARGEST // 4}: train with "
                "more weight decay"
            )
        known = {k: v for k, v in model.config.items() if k != "dropout"}
        made = cls(**known, bits=bits)
        state = {k: v.detach().double().cpu().numpy() for k, v in model.state_dict().items()}
        to_codes = _CODE / np.abs(state["codes"]).max((1, 2))  # of each level
        # In the sum over levels, each level's scale goes into its weights.
        scale = np.repeat(to_codes, model.config["code_dim"])
        blocks = range(len(made.dilations))

        def stacked(name: str, kind: str) -> NDArray[np.float64]:
            return np.stack([state[f"{name}.{i}.{kind}"] for i in blocks])

        whole = {
            "to_time": (np.concatenate(state["to_time"]).T / scale, None, 0, bits),
            "to_depth": (np.concatenate(state["to_depth"]).T / scale, None, 0, bits),
            "widen": (stacked("widen", "weight"), stacked("widen", "bias"), bits, bits),
            "narrow": (stacked("narrow", "weight"), stacked("narrow", "bias"), bits, bits),
            "level_in": (_turned(state["level_in"]), state["level_bias"], bits, bits),
            "level_out": (_turned(state["level_out"]), None, bits, bits),
            "head": (
                state["head"] / math.log(2),
                state["head_bias"] / math.log(2),
                bits,
                SCORE_BITS,
            ),
        }
        new = {
            f"{name}_{kind}": value
            for name, arguments in whole.items()
            for kind, value in quantize_layer(*arguments).items()
        }
        new["codes"] = np.rint(state["codes"] * to_codes[:, None, None]).astype(np.int8)
        new["first"] = np.rint(state["first"] * 2.0**bits).clip(-LARGEST, LARGEST).astype(np.int16)
        new["table"] = power_table().astype(np.int32)
        made.load_state_dict({name: torch.from_numpy(value) for name, value in new.items()})
        return made.eval()

    def forward(self, codes: Tensor) -> Tensor:
        """Compute the counts of all codes.

        Args:
            codes: int64 [B, n, T] with the first n levels, n at most K.
        Returns:
            int64 [B, n, T, V]; each row sums to at most 2**22.
        Raises:
            ValueError: wrong number of levels.
        """
        self.check_codes(codes)
        steps = self._steps()
        vectors = steps.vectors(codes.mT)  # [B, T, n * code_dim]
        frames = F.pad(steps.from_codes("to_time", vectors)[:, :-1], (0, 0, 1, 0))
        frames[:, 0] = self.first.long()
        past = frames
        for block, dilation in enumerate(self.dilations):
            taps = [
                F.pad(past, (0, 0, i * dilation, 0))[:, : past.shape[1]] for i in range(self.taps)
            ]
            past = steps.block(block, torch.cat(taps, -1), past)
        counts = []
        for level in range(codes.shape[1]):
            below = vectors[..., : level * self.code_dim]
            counts.append(steps.level(level, past, below))
        return torch.stack(counts, 1)

    @torch.no_grad()
    def bits(self, codes: Tensor) -> Tensor:
        """Bits of each code, float32 [B, K, T], for an ideal coder with these counts."""
        counts = self(codes)
        chosen = counts.gather(-1, codes[..., None])[..., 0]
        return TOTAL_BITS - chosen.double().log2().float()

    def stream(self) -> IntegerStream:
        """Return the model as the range coder uses it."""
        return IntegerStream(self)

    def hash(self) -> str:
        """SHA-256 (hex) of all that decides the counts: sizes and weights."""
        sizes = {k: v for k, v in self.config.items() if k != "codec"}
        text = json.dumps(sizes, sort_keys=True) + hash_weights(self)
        return hashlib.sha256(text.encode()).hexdigest()

    def _check(self, name: str, low: int, high: int) -> None:
        """Raise a ValueError unless a tensor stays within low..high."""
        found = [int(x) for x in getattr(self, name).aminmax()]
        if found[0] < low or found[1] > high:
            raise ValueError(
                f"{name} reaches from {found[0]} to {found[1]}, but must stay within {low}..{high}:"
                " the weights are damaged"
            )

    def _steps(self, *, numpy: bool = False) -> _Steps:
        for name in self._layers:
            self._check(f"{name}_shift", *SHIFTS)
        self._check("table", 1, 1 << TABLE_BITS)
        state = {k: v.cpu().numpy() if numpy else v for k, v in self.state_dict().items()}

        def whole(name: str) -> Any:
            return state[name].astype(np.int64) if numpy else state[name].long()

        layers = {}
        for name in self._layers:
            weight, shift = state[f"{name}_weight"], whole(f"{name}_shift")
            bias = whole(f"{name}_bias") + (1 << (shift - 1) if numpy else 2 ** (shift - 1))
            layers[name] = Layer(
                weight.astype(np.float64) if numpy else weight.double(), bias, shift
            )
        return _Steps(layers, whole("codes"), whole("table"), self.code_dim)


def _turned(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., in, out] as [..., out, in]."""
    return np.swapaxes(matrices, -1, -2)


@dataclass(frozen=True)
class _Steps:
    """The steps of the network, for NumPy arrays or torch tensors of any leading shape."""

    layers: dict[str, Layer]
    codes: Any
    table: Any
    code_dim: int

    def vectors(self, frames: Any) -> Any:
        """Table rows of the codes [..., n], joined: int64 [..., n * code_dim]."""
        rows = [self.codes[level][frames[..., level]] for level in range(frames.shape[-1])]
        if isinstance(frames, torch.Tensor):
            return torch.cat(rows, -1)
        return np.concatenate(rows, -1)

    def from_codes(self, name: str, vectors: Any) -> Any:
        """Apply "to_time" or "to_depth" to the vectors of the first levels."""
        layer = self.layers[name]
        part = Layer(layer.weight[:, : vectors.shape[-1]], layer.bias, layer.shift)
        return clip(part(vectors))

    def block(self, index: int, taps: Any, x: Any) -> Any:
        """One residual block over time."""
        hidden = clip(self.layers["widen"].part(index)(taps), 0)
        return clip(x + self.layers["narrow"].part(index)(hidden))

    def level(self, level: int, past: Any, below: Any) -> Any:
        """Counts of a level from the past [..., dim] and the vectors of the levels below it."""
        x = clip(past + self.from_codes("to_depth", below)) if level else past
        x = clip(self.layers["level_in"].part(level)(x), 0)
        x = clip(self.layers["level_out"].part(level)(x))
        return counts_of(self.layers["head"].part(level)(x), self.table)


@dataclass(frozen=True)
class StreamState:
    """State of a stream between two frames.

    Attributes:
        n_levels: levels of each frame.
        past: output of the network over time, int64 [..., dim].
        earlier: newest inputs of each block, the newest first.
    """

    n_levels: int
    past: _Integers
    earlier: tuple[tuple[_Integers, ...], ...]


class IntegerStream:
    """An `IntegerDepthNetwork` in NumPy, one code after another.

    Several blocks can be coded at once: `frame` then has leading axes, the same in every call, and
    `start` gets their shape.

    Attributes:
        n_codebooks, codebook_size: sizes of the model.
        model_hash: SHA-256 (hex) of all that decides the counts.
    """

    def __init__(self, model: IntegerDepthNetwork) -> None:
        self.n_codebooks, self.codebook_size = model.n_codebooks, model.codebook_size
        self.model_hash = model.hash()
        self._steps = model._steps(numpy=True)
        self._first = model.first.cpu().numpy().astype(np.int64)
        self._dilations, self._taps = model.dilations, model.taps

    def start(self, n_levels: int, shape: tuple[int, ...] = ()) -> StreamState:
        """Return the state before the first frame of a block.

        Args:
            n_levels: levels of each frame, 1..n_codebooks.
            shape: of several blocks that are coded at once.
        Raises:
            ValueError: n_levels is out of range.
        """
        if not 1 <= n_levels <= self.n_codebooks:
            raise ValueError(f"n_levels is {n_levels}, but must be 1..{self.n_codebooks}")
        first = np.broadcast_to(self._first, (*shape, len(self._first)))
        zeros = np.zeros_like(first)
        earlier = tuple((zeros,) * ((self._taps - 1) * d) for d in self._dilations)
        return self._advance(StreamState(n_levels, first, earlier), first)

    def counts(self, state: StreamState, level: int, frame: _Integers) -> _Integers:
        """Return the counts of a code, int64 [..., codebook_size].

        Args:
            state: what `start` or `update` returned.
            level: level of the code.
            frame: codes of this frame so far, int64 [..., level].
        """
        below = self._steps.vectors(frame) if level else frame
        return self._steps.level(level, state.past, below)

    def update(self, state: StreamState, frame: _Integers) -> StreamState:
        """Return the state after a frame, codes int64 [..., n_levels]."""
        return self._advance(state, self._steps.from_codes("to_time", self._steps.vectors(frame)))

    def _advance(self, state: StreamState, x: _Integers) -> StreamState:
        """Run the network over time on its next input [..., dim]."""
        earlier = []
        for block, (dilation, before) in enumerate(
            zip(self._dilations, state.earlier, strict=True)
        ):
            inputs = (x, *before)
            taps = np.concatenate([inputs[i * dilation] for i in range(self._taps)], -1)
            earlier.append(inputs[:-1])
            x = self._steps.block(block, taps, x)
        return StreamState(state.n_levels, x, tuple(earlier))
