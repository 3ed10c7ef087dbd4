"""Parallel decoding of codes, level by level, with classifier-free guidance.

The algorithm is that of SoundStorm (Borsos et al. 2023; Code Drift, section V): levels are decoded
one after the other, coarse first, and each level as in MaskGIT (Chang et al. 2022). All its codes
start hidden (MASK), except for given codes. Each of its S steps (s = 0 ... S-1) then

1. computes logits (u + s (c - u)) / `temperature`: c is predicted from the conditioning, u without
   it, and s is `SamplingSettings.scale`;
2. draws one code for every hidden position, from the smallest set of most likely codes whose
   probabilities sum to `top_p`;
3. computes confidences: the log-probability of the drawn code in the whole distribution, plus
   Gumbel noise times `mask_temperature` (1 - (s + 1) / S);
4. hides the floor(N cos(pi/2 (s + 1) / S)) least confident positions again, with N the number that
   the level started with. Each step reveals at least one code, and revealed codes never change.

If the model has a depth of frames (see `tokgen.modelling.depths`), the depth is the first level.
Later levels are decoded where they are live. It has as many steps as the first level of codes.

The codes of an item depend only on the seed and its id, not on the rest of its batch. The numbers
of hidden positions are computed before the first step, so the loop never waits for a GPU; with a
depth it waits once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.generation.inputs import apply_guidance, check_given, check_items
from tokgen.generation.nucleus import draw
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.depths import live_levels
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import n_masked
from tokgen.runs.progress import progress_bar

__all__ = ["BAR_DELAY", "sample"]

BAR_DELAY = 5.0  # seconds before a progress bar is shown


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
    shape: tuple[int, int] | None = None,
    progress: bool = False,
) -> Tensor:
    """Generate codes with a masked model.

    Args:
        model: a model in eval mode.
        conditioning: [B, C, T]; None generates without conditioning and without guidance.
        lengths: int64 [B], number of frames of each item.
        settings: see `SamplingSettings`.
        seed: seed of all noise.
        codes: int64 [B, K, T], given codes; only those at `keep` are read. [B, K + 1, T] for a
            model with a depth.
        keep: bool, true at given codes, which never change. Codes are given with their depth.
        item_ids: ids that select each item's noise; default 0..B-1.
        n_codebooks: number of levels to generate; None for all.
        shape: number of items and frames to pad the batch to; None does not pad. Calls with equal
            shapes share one compiled graph.
        progress: show a bar if it takes long.
    Returns:
        codes int64 [B, n_codebooks, T], 0 past the end of each item. [B, n_codebooks + 1, T] for a
        model with a depth, 0 past the depth too; `split_depth` splits them.
    Raises:
        ValueError: `codes` without `keep` or the reverse, a wrong shape of either, MASK among the
            given codes, given codes without their depth, n_codebooks outside 1..K, a negative seed,
            no items, an item without frames, or a `shape` that is too small.
    """
    frames = check_items(lengths, seed)
    most, variable = model.n_codebooks, model.variable_depth
    n_levels = most if n_codebooks is None else n_codebooks
    if not 1 <= n_levels <= most:
        raise ValueError(f"n_codebooks = {n_levels}: the model has levels 1..{most}")
    n_levels += variable
    device = next(model.parameters()).device
    # Shapes stay the same if all positions pass through the output head, not only hidden ones.
    all_positions = settings.compile or shape is not None or device.type == "cuda"
    n_items, n_frames = shape or (len(frames), max(frames))
    extra = (n_items - len(frames), n_frames - max(frames))
    if min(extra) < 0:
        raise ValueError(f"shape = {shape}: {len(frames)} items of {max(frames)} frames do not fit")
    ids = range(len(frames)) if item_ids is None else item_ids
    inside = torch.arange(n_frames) < torch.tensor(frames + [0] * extra[0])[:, None]
    known, given = check_given(model, codes, keep, inside[: len(frames), : max(frames)])
    known, given = _pad(known, extra).to(device), _pad(given, extra).to(device)
    inside = inside.to(device)
    predict = _predictor(model, conditioning, frames, extra, settings)
    steps = [settings.at(max(0, level - variable)) for level in range(n_levels)]
    tokens = torch.full((n_items, model.n_levels, n_frames), model.mask_id, device=device)
    live = inside[:, None].expand_as(tokens)
    with progress_bar(
        "sampling", total=sum(steps), unit="step", delay=BAR_DELAY, show=progress
    ) as bar:

        def fill(levels: Sequence[int]) -> None:
            """Generate levels, one after the other."""
            to_fill = (live & ~given).sum(-1).T.cpu()
            turns, counts = _schedule(levels, to_fill, steps)
            noise = _noise(seed, ids, turns, frames, (n_items, n_frames))
            n_hidden = dict(zip(turns, counts.to(device), strict=True))
            noises = dict(zip(turns, noise.to(device), strict=True))
            for level in levels:
                # Given codes of later levels stay MASK until their turn, as in training.
                tokens[:, level] = torch.where(given[:, level], known[:, level], tokens[:, level])
                hidden = live[:, level] & ~given[:, level]
                for step in range(steps[level]):
                    bar.update()
                    if (level, step) not in noises:
                        continue  # nothing is hidden
                    for_codes, for_gumbel = noises[level, step]
                    if all_positions:
                        logits = predict(tokens, level, None)
                        drawn, log_p = draw(logits, settings.top_p, for_codes)
                    else:
                        logits = predict(tokens, level, hidden)
                        few = draw(logits, settings.top_p, for_codes[hidden])
                        drawn, log_p = (
                            torch.zeros(hidden.shape, dtype=v.dtype).masked_scatter(hidden, v)
                            for v in few
                        )
                    revealed = torch.where(hidden, drawn, tokens[:, level])
                    left = 1 - (step + 1) / steps[level]
                    gumbel = -torch.log(-torch.log(for_gumbel))
                    confidence = log_p + settings.mask_temperature * left * gumbel
                    confidence = confidence.masked_fill(~hidden, torch.inf)
                    rank = confidence.argsort(-1).argsort(-1)  # 0 is the least confident
                    hidden = hidden & (rank < n_hidden[level, step][:, None])
                    tokens[:, level] = revealed.masked_fill(hidden, model.mask_id)

        if variable:  # the depth tells what is live
            fill(range(1))
            live = live_levels(tokens) & inside[:, None]
        fill(range(variable, n_levels))
    return tokens.masked_fill(~live, 0)[: len(frames), :n_levels, : max(frames)]


def _schedule(
    levels: Sequence[int], to_fill: Tensor, steps: Sequence[int]
) -> tuple[list[tuple[int, int]], Tensor]:
    """Compute how many positions stay hidden after each step.

    From int64 [L, B], the hidden positions at the start of each level, this computes the S pairs
    (level, step) of some levels that have hidden positions, and int64 [S, B], the positions that
    each leaves.
    """
    turns, counts = [], [to_fill[:0]]
    for level in levels:
        first = hidden = to_fill[level]
        for step in range(steps[level]):
            if not hidden.any():
                break
            hidden = n_masked(step, steps[level], first, hidden)
            turns.append((level, step))
            counts.append(hidden[None])
    return turns, torch.cat(counts)


def _predictor(
    model: MaskedTransformer,
    conditioning: Tensor | None,
    frames: Sequence[int],
    extra: tuple[int, int],
    settings: SamplingSettings,
) -> Callable[[Tensor, int, Tensor | None], Tensor]:
    """Return a function that computes logits with guidance, divided by the temperature.

    Its arguments are tokens [B, K, T], a level, and bool [B, T] that selects n positions. It
    returns logits [n, V], or [B, T, V] for all positions if the last argument is None. `extra` is
    the number of items and frames that the tokens are padded by.
    """
    device = next(model.parameters()).device
    call = torch.compile(model) if settings.compile else model
    n_frames = max(frames) + extra[1]
    # Padding items count as full: attention over no frames at all would be NaN.
    sizes = torch.tensor([*frames, *[n_frames] * extra[0]])
    guided = conditioning is not None and settings.scale != 1.0
    copies = 2 if guided else 1  # guidance computes both predictions in one batch
    drop = (torch.arange(2 * len(sizes)) >= len(sizes)).to(device) if guided else None
    # Attention is faster without a mask.
    lengths = None if (sizes == n_frames).all() else sizes.to(device).repeat(copies)
    if conditioning is not None:
        conditioning = _pad(conditioning.to(device), extra).repeat(copies, 1, 1)

    def predict(tokens: Tensor, level: int, positions: Tensor | None) -> Tensor:
        logits = call(
            tokens.repeat(copies, 1, 1),
            conditioning,
            drop_conditioning=drop,
            lengths=lengths,
            level=level,
            positions=None if positions is None else positions.repeat(copies, 1),
        ).float()
        if guided:
            logits = apply_guidance(logits, settings.scale)
        return logits.div_(settings.temperature)

    return predict


def _noise(
    seed: int,
    ids: Sequence[int],
    turns: Sequence[tuple[int, int]],
    frames: Sequence[int],
    shape: tuple[int, int],
) -> Tensor:
    """Draw uniform noise in (0, 1), [S, 2, B, T], seeded with (seed, id, level, step)."""
    out = np.full((len(turns), 2, *shape), 0.5, dtype=np.float32)
    for turn, (level, step) in zip(out, turns, strict=True):
        for i, (item, n) in enumerate(zip(ids, frames, strict=True)):
            rng = np.random.default_rng((seed, item, level, step))
            turn[:, i, :n] = rng.random((n, 2)).T.clip(1e-7, 1 - 1e-7)
    return torch.from_numpy(out)


def _pad(batch: Tensor, extra: tuple[int, int]) -> Tensor:
    """Pad [B, C, T] with zeros by `extra` items and frames."""
    return F.pad(batch, (0, extra[1], 0, 0, 0, extra[0]))
