"""Decoding level by level: MaskGIT's confidence-based unmasking within each level, with guidance.

SoundStorm (Borsos et al. 2023) and Code Drift, section V. Noise of an item comes from the seed
and its own id, so what is generated does not depend on what it is batched with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tokgen.masking import n_masked
from tokgen.model import MaskedTransformer


@dataclass(frozen=True)
class SamplingSettings:
    """How to sample.

    Attributes:
        steps: per level, coarse first; the last counts for all further levels.
        temperature: divides the logits.
        top_p: nucleus; 1 keeps the whole distribution.
        mask_temperature: scale of the Gumbel noise on confidences, falling linearly to 0.
        guidance_scale: w in u + w (c - u); 1 is off.
    """

    steps: tuple[int, ...] = (16, 1)
    temperature: float = 1.0
    top_p: float = 0.85
    mask_temperature: float = 10.5
    guidance_scale: float = 2.0

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(f"steps = {self.steps}: give at least one level, each at least 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature = {self.temperature}: must be above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p}: must be in (0, 1]")

    def at(self, level: int) -> int:
        """Steps of `level`."""
        return self.steps[min(level, len(self.steps) - 1)]


@torch.inference_mode()
def sample(
    model: MaskedTransformer,
    conditioning: Tensor | None,
    lengths: Tensor,
    settings: SamplingSettings,
    *,
    seed: int,
    codes: Tensor | None = None,
    keep: Tensor | None = None,
    item_ids: Sequence[int] | None = None,
    n_codebooks: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Generate codes.

    Args:
        model: in eval mode.
        conditioning: [B, C, T]; None generates without, and then guidance is off.
        lengths: int64 [B], frames of each item.
        settings: see `SamplingSettings`.
        seed: of all noise.
        codes: int64 [B, K, T], known codes where `keep` is true.
        keep: bool [B, K, T], positions that are given and never change.
        item_ids: what an item's noise depends on beside the seed; default 0..B-1.
        n_codebooks: levels to generate; None for all. Levels above stay MASK.
        progress: show a bar.
    Returns:
        int64 [B, n_codebooks, T]; 0 past each item's end.
    Raises:
        ValueError: `keep` without `codes`, either of another shape, a MASK to keep, or
            n_codebooks outside 1..K.
    """
    n_levels = model.n_codebooks if n_codebooks is None else n_codebooks
    if not 1 <= n_levels <= model.n_codebooks:
        raise ValueError(f"n_codebooks = {n_levels}: the model has levels 1..{model.n_codebooks}")
    if (codes is None) != (keep is None):
        raise ValueError("give `codes` and `keep` together: what is known, and where")
    device = next(model.parameters()).device
    lengths = lengths.to(device)
    batch, n_frames = len(lengths), int(lengths.max())
    if conditioning is not None:
        conditioning = conditioning.to(device)
    ids = list(range(batch)) if item_ids is None else list(item_ids)
    inside = torch.arange(n_frames, device=device) < lengths[:, None]
    tokens = torch.full((batch, model.n_codebooks, n_frames), model.mask_id, device=device)
    known, given = torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
    if codes is not None and keep is not None:
        if not codes.shape == keep.shape == tokens.shape:
            raise ValueError(
                f"codes {tuple(codes.shape)} and keep {tuple(keep.shape)}: expected "
                f"{tuple(tokens.shape)}; `keep` says which of the codes count"
            )
        known, given = codes.to(device), keep.to(device) & inside[:, None]
        if ((known < 0) | (known >= model.codebook_size))[given].any():
            raise ValueError(
                f"codes to keep lie outside 0..{model.codebook_size - 1}: a MASK among them?"
            )

    total_steps = sum(settings.at(k) for k in range(n_levels))
    with tqdm(total=total_steps, unit="step", desc="sampling", disable=not progress) as bar:
        for level in range(n_levels):
            # Only this level is filled in: levels above stay MASK, as in training.
            tokens[:, level] = torch.where(given[:, level], known[:, level], tokens[:, level])
            hidden = inside & ~given[:, level]
            first = hidden.sum(-1)
            for step in range(settings.at(level)):
                bar.update()
                if not hidden.any():
                    continue  # all is given or settled: nothing to ask the model
                noise = _noise(seed, ids, level, step, lengths)
                logits = _guided(model, tokens, conditioning, lengths, level, settings)
                drawn, log_p = _draw(logits / settings.temperature, settings.top_p, noise[0])
                now = torch.where(hidden, drawn, tokens[:, level])
                stay = n_masked(step, settings.at(level), first, hidden.sum(-1))
                left = 1 - (step + 1) / settings.at(level)
                gumbel = -torch.log(-torch.log(noise[1]))
                confidence = log_p + settings.mask_temperature * left * gumbel
                confidence = confidence.masked_fill(~hidden, torch.inf)
                rank = confidence.argsort(-1).argsort(-1)  # 0 is the least confident
                hidden = hidden & (rank < stay[:, None])
                tokens[:, level] = now.masked_fill(hidden, model.mask_id)
    return tokens[:, :n_levels].masked_fill(~inside[:, None], 0)


def _guided(
    model: MaskedTransformer,
    tokens: Tensor,
    conditioning: Tensor | None,
    lengths: Tensor,
    level: int,
    settings: SamplingSettings,
) -> Tensor:
    """Logits [B, T, V]; with guidance both passes go as one batch."""
    if conditioning is None or settings.guidance_scale == 1.0:
        return model(tokens, conditioning, lengths=lengths, level=level).float()
    drop = torch.zeros(2 * len(tokens), dtype=torch.bool, device=tokens.device)
    drop[len(tokens) :] = True
    both = model(
        torch.cat([tokens, tokens]),
        torch.cat([conditioning, conditioning]),
        drop_conditioning=drop,
        lengths=torch.cat([lengths, lengths]),
        level=level,
    )
    conditional, unconditional = both.float().chunk(2)
    return unconditional + settings.guidance_scale * (conditional - unconditional)


def _draw(logits: Tensor, top_p: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """One code per position from the nucleus, by inverting the cumulative distribution.

    Args:
        logits: [B, T, V].
        noise: uniform in (0, 1), [B, T].
    Returns:
        codes [B, T] and their log-probabilities [B, T] before the nucleus was cut.
    """
    log_p, order = logits.log_softmax(-1).sort(dim=-1, descending=True)
    p = log_p.exp()
    below = p.cumsum(-1) - p
    p = p * (below < top_p)  # the likeliest code always stays
    cumulative = p.cumsum(-1)
    threshold = noise[..., None] * cumulative[..., -1:]
    pick = (cumulative < threshold).sum(-1, keepdim=True)
    pick = torch.minimum(pick, (p > 0).sum(-1, keepdim=True) - 1)
    return order.gather(-1, pick)[..., 0], log_p.gather(-1, pick)[..., 0]


def _noise(seed: int, ids: Sequence[int], level: int, step: int, lengths: Tensor) -> Tensor:
    """Uniform noise [2, B, T] in (0, 1), each item's from (seed, id, level, step) alone."""
    frames = lengths.tolist()
    out = np.full((2, len(ids), max(frames)), 0.5)
    for i, (item, n) in enumerate(zip(ids, frames, strict=True)):
        rng = np.random.default_rng((seed, item, level, step))
        out[:, i, :n] = rng.random((n, 2)).T
    return torch.from_numpy(out.clip(1e-7, 1 - 1e-7)).float().to(lengths.device)
