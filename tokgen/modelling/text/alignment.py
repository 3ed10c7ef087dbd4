"""Monotonic alignment of symbols and frames (Badlani et al. 2021, "One TTS alignment").

Every frame belongs to one symbol, the symbols come in order, and each has at least one frame. The
loss sums over all such alignments; `best_durations` finds the likeliest.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.runs.device import float64

__all__ = ["alignment_loss", "best_durations", "diagonal_prior", "expand"]

_NEVER = -1e4
_BLANK = -1.0  # logit of the blank that CTC needs beside the symbols


def diagonal_prior(
    n_symbols: Tensor, n_frames: Tensor, shape: tuple[int, int], sharpness: float = 1.0
) -> Tensor:
    """Log-probabilities of the symbols of each frame before anything is learned.

    That of frame t is the beta-binomial distribution with alpha = w (t + 1) and beta = w (T - t),
    which is widest in the middle.

    Args:
        n_symbols, n_frames: int64 [B] each.
        shape: frames and symbols of the result.
        sharpness: w; a larger one keeps nearer to the diagonal.
    Returns:
        float32 [B, T, L], about -10,000 past the end of the symbols.
    """
    most = float64(n_symbols[:, None, None]) - 1
    frame = torch.arange(shape[0], device=most.device)[None, :, None].double()
    symbol = torch.arange(shape[1], device=most.device)[None, None].double()
    frames = torch.maximum(float64(n_frames[:, None, None]), frame + 1)
    alpha, beta = sharpness * (frame + 1), sharpness * (frames - frame)
    k = torch.minimum(symbol, most)

    def log_beta(a: Tensor, b: Tensor) -> Tensor:
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    choose = -torch.log(most + 1) - log_beta(most - k + 1, k + 1)
    found = choose + log_beta(k + alpha, most - k + beta) - log_beta(alpha, beta)
    return found.masked_fill(symbol > most, _NEVER).float().to(n_symbols.device)


def alignment_loss(scores: Tensor, n_symbols: Tensor, n_frames: Tensor) -> Tensor:
    """Mean negative log-likelihood (nats per symbol) of all monotonic alignments together.

    Args:
        scores: [B, T, L], logits of the symbols in each frame.
        n_symbols, n_frames: int64 [B] each; an item needs at least as many frames as symbols.
    """
    inside = torch.arange(scores.shape[-1], device=scores.device) < n_symbols[:, None]
    scores = scores.float().masked_fill(~inside[:, None], _NEVER)
    log_p = F.pad(scores, (1, 0), value=_BLANK).log_softmax(-1).transpose(0, 1)
    targets = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
    return F.ctc_loss(
        log_p, targets.expand(len(scores), -1), n_frames, n_symbols, zero_infinity=True
    )


@torch.no_grad()
def best_durations(scores: Tensor, n_symbols: Tensor, n_frames: Tensor) -> Tensor:
    """Number of frames of each symbol in the likeliest alignment (Viterbi).

    Args:
        scores: [B, T, L], logits of the symbols in each frame.
        n_symbols, n_frames: int64 [B] each.
    Returns:
        int64 [B, L] on the CPU, 0 past the end; those of an item sum to its frames.
    Raises:
        ValueError: an item has fewer frames than symbols.
    """
    if (n_frames < n_symbols).any():
        i = int((n_frames < n_symbols).nonzero()[0])
        raise ValueError(
            f"item {i} has {int(n_symbols[i])} symbols in {int(n_frames[i])} frames: each symbol "
            "needs a frame; leave the clip out"
        )
    inside = torch.arange(scores.shape[-1], device=scores.device) < n_symbols[:, None]
    log_p = scores.float().masked_fill(~inside[:, None], -torch.inf).log_softmax(-1).cpu().numpy()
    n_items, length, width = log_p.shape
    value = np.full((n_items, width), -np.inf, dtype=np.float32)
    value[:, 0] = log_p[:, 0, 0]
    moved = np.zeros((length, n_items, width), dtype=bool)
    for t in range(1, length):
        before = np.full_like(value, -np.inf)
        before[:, 1:] = value[:, :-1]
        moved[t] = before > value
        value = np.maximum(value, before) + log_p[:, t]
    durations = np.zeros((n_items, width), dtype=np.int64)
    for i in range(n_items):
        symbol = int(n_symbols[i]) - 1
        for t in range(int(n_frames[i]) - 1, -1, -1):
            durations[i, symbol] += 1
            symbol -= int(moved[t, i, symbol])
    return torch.from_numpy(durations)


def expand(durations: Tensor, n_frames: int) -> tuple[Tensor, Tensor]:
    """The symbol of each frame, and the frame's place in it.

    Args:
        durations: int64 [B, L], frames of each symbol.
        n_frames: T.
    Returns:
        index of the symbol, int64 [B, T], that of the last past the end; and frames before this
        one in the symbol, int64 [B, T].
    """
    ends = durations.cumsum(-1)
    frame = torch.arange(n_frames, device=durations.device).expand(len(durations), -1)
    symbol = torch.searchsorted(ends, frame.contiguous(), right=True)
    symbol = symbol.clamp(max=durations.shape[-1] - 1)
    return symbol, frame - (ends - durations).gather(-1, symbol)
