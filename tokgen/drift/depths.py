"""Drift of the depth that a codec of variable bitrate gives its frames.

The depth of a frame depends on what the codec hears, so it may change on re-encoding. The match of
codes then counts the codes that are live in both passes: those of the levels below the smaller of
both depths of a frame. A level's share is over the frames in which it is live in both; NaN if there
is none. The mean over levels becomes the share over all codes that are live in both passes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.depth import mean_kbps
from tokgen.codec.spec import CodecSpec
from tokgen.metrics.codebook import token_match

__all__ = [
    "DEPTH_BACKENDS",
    "PER_DEPTH",
    "depth_values",
    "live_codes",
    "live_match",
    "match_over_levels",
    "name_of",
    "rate_plan",
]

PER_DEPTH = ("depth_match_previous", "depth_match_first", "kbps")  # one value per pass
DEPTH_BACKENDS = {
    "depth_match_previous": "tokgen (share of frames of the depth of the pass before)",
    "depth_match_first": "tokgen (share of frames of the depth of the first pass)",
    "kbps": "tokgen (codes without entropy coding, and the depth with adaptive coding)",
}


def name_of(codec: Codec | WaveformCodec) -> str:
    """Return the name of a codec, with the level or bitrate of a variable one.

    Examples are "speech-16k-vbr:2.5" (kbps) and "speech-16k-vbr (level 1.5)".
    """
    name, rate = codec.spec.name, codec.rate if isinstance(codec, Codec) else None
    if rate is None:
        return name
    suffix = f":{rate.bitrate:g}" if rate.level is None else f" (level {rate.level:g})"
    return name if name.endswith(suffix) else name + suffix


def rate_plan(codec: Codec | WaveformCodec) -> list[Any]:
    """Return what the depth depends on, for the plan of a store; empty without one."""
    rate = codec.rate if isinstance(codec, Codec) else None
    return [] if rate is None else [asdict(rate)]


def live_match(a: Tensor, b: Tensor, depth_a: Tensor | None, depth_b: Tensor | None) -> Tensor:
    """Return the share of equal codes per level, of the codes that are live on both sides.

    Args:
        a, b: codes [K, T].
        depth_a, depth_b: depths [T] of both; None if all frames have all levels.
    Returns:
        float64 [K]; NaN for a level that is live in no frame of both.
    """
    if depth_a is None or depth_b is None:
        return token_match(a, b)
    return token_match(a, b, torch.minimum(depth_a, depth_b))


def match_over_levels(match: np.ndarray, depth: np.ndarray | None, first: bool) -> np.ndarray:
    """Return the match of all levels together, [passes].

    Args:
        match: of each level, [passes, K].
        depth: of each pass, [passes, T]; None if all frames have all levels.
        first: whether the match is with the first pass; otherwise with the pass before.
    """
    if depth is None:
        return match.mean(-1)
    other = depth[:1] if first else np.concatenate([depth[:1], depth[:-1]])
    both = np.minimum(depth, other)
    live = (both[:, None] > np.arange(match.shape[1])[:, None]).sum(-1)  # [passes, K]
    known = ~np.isnan(match)
    n_known = np.where(known, live, 0).sum(-1)
    total = np.where(known, match * live, 0).sum(-1)
    return np.divide(total, n_known, out=np.full(len(match), np.nan), where=n_known > 0)


def live_codes(codes: np.ndarray, depth: np.ndarray | None) -> list[np.ndarray]:
    """Return the live codes of each level of codes [K, T], as K arrays of their own lengths."""
    if depth is None:
        return list(codes)
    return [level[depth > k] for k, level in enumerate(codes)]


def depth_values(depths: list[Tensor], spec: CodecSpec, compared: bool) -> dict[str, np.ndarray]:
    """Return the values `PER_DEPTH` of a clip.

    Args:
        depths: [T] of each pass.
        compared: whether the frames of all passes hold the same samples; without it, there are no
            matches.
    """
    found = {"kbps": np.array([mean_kbps(depth, spec) for depth in depths])}
    if compared:
        table = torch.stack(depths)
        before = (table[1:] == table[:-1]).double().mean(-1).numpy()
        found["depth_match_previous"] = np.concatenate([[np.nan], before])
        found["depth_match_first"] = (table == table[:1]).double().mean(-1).numpy()
    return found
