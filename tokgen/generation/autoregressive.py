"""Step-by-step decoding of codes with a delay pattern, guidance and top-p.

Each step draws one code of every level (see `tokgen.modelling.delay`) from logits
(u + s (c - u)) / `temperature`: c is predicted from the conditioning, u without it, and s is
`SamplingSettings.scale`. The draw is from the nucleus of `top_p`. Keys and values of earlier steps
are kept. `steps` and `mask_temperature` of the settings do not apply.

The codes of an item depend only on the seed and its id, not on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.generation.inputs import apply_guidance, check_given, check_items
from tokgen.generation.nucleus import draw
from tokgen.generation.sampling import BAR_DELAY
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.delay import DelayTransformer
from tokgen.runs.progress import progress_bar
from tokgen.tokens.layouts import delay, undelay

__all__ = ["sample_delay"]


@torch.inference_mode()
def sample_delay(
    model: DelayTransformer,
    conditioning: Tensor | None,
    lengths: Tensor,
    settings: SamplingSettings,
    *,
    seed: int,
    codes: Tensor | None = None,
    keep: Tensor | None = None,
    item_ids: Sequence[int] | None = None,
    progress: bool = False,
) -> Tensor:
    """Generate codes with an autoregressive model.

    Args:
        model: a model in eval mode.
        conditioning: [B, C, T]; None generates without conditioning and without guidance.
        lengths: int64 [B], number of frames of each item.
        settings: see `SamplingSettings`.
        seed: seed of all noise.
        codes: int64 [B, K, T], given codes; only those at `keep` are read.
        keep: bool [B, K, T], true at given codes: all levels of the first frames of an item.
        item_ids: ids that select each item's noise; default 0..B-1.
        progress: show a bar if it takes long.
    Returns:
        codes int64 [B, K, T], 0 past the end of each item.
    Raises:
        ValueError: `codes` without `keep` or the reverse, a wrong shape of either, codes that are
            kept after one that is not, MASK among the given codes, a negative seed, no items, or an
            item without frames.
    """
    frames = check_items(lengths, seed)
    device = next(model.parameters()).device
    n_items, n_levels, longest = len(frames), model.n_codebooks, max(frames)
    lengths = torch.tensor(frames)
    known = _known(model, codes, keep, lengths)
    given = delay(known, -1, lengths=lengths, check=False).to(device)
    n_steps = longest + n_levels - 1
    ids = range(n_items) if item_ids is None else item_ids
    noise = _noise(seed, ids, (n_steps, n_levels)).to(device)
    # Levels have a code in a step if the step's frame of that level is one of the item's.
    places = torch.zeros(n_items, n_levels, longest, dtype=torch.int64)
    live = delay(places, -1, lengths=lengths) == 0
    live, lengths = live.to(device), lengths.to(device)
    guided = conditioning is not None and settings.scale != 1.0
    copies = 2 if guided else 1  # guidance computes both predictions in one batch
    if conditioning is not None:
        spare = n_steps - conditioning.shape[-1]
        conditioning = F.pad(conditioning.to(device), (0, spare)).repeat(copies, 1, 1)
    unconditional = torch.arange(copies * n_items, device=device) >= n_items
    tokens = torch.full((n_items, n_levels), model.mask_id, device=device)
    out, state = [], None
    with progress_bar(
        "sampling", total=n_steps, unit="step", delay=BAR_DELAY, show=progress
    ) as bar:
        for step in range(n_steps):
            past = (step >= lengths).repeat(copies)
            logits, state = model.step(
                tokens.repeat(copies, 1),
                None if conditioning is None else conditioning[..., step],
                state,
                drop_conditioning=past | unconditional,
            )
            logits = logits.float()
            if guided:
                logits = apply_guidance(logits, settings.scale)
                logits = logits.masked_fill_(logits.isnan(), -torch.inf)  # no such codes
            drawn, _ = draw(logits.div_(settings.temperature), settings.top_p, noise[:, step])
            tokens = torch.where(given[..., step] >= 0, given[..., step], drawn)
            tokens = tokens.where(live[..., step], model.mask_id)
            out.append(tokens)
            bar.update()
    made = undelay(torch.stack(out, 2))
    inside = torch.arange(longest, device=device) < lengths[:, None]
    return made.masked_fill(~inside[:, None], 0)


def _known(
    model: DelayTransformer, codes: Tensor | None, keep: Tensor | None, lengths: Tensor
) -> Tensor:
    """Check given codes; return them as [B, K, T], with -1 at codes to generate."""
    frame = torch.arange(int(lengths.max()))
    codes, given = check_given(model, codes, keep, frame < lengths[:, None])
    n_kept = given[:, 0].sum(-1)
    if not (given == (frame < n_kept[:, None, None])).all():
        raise ValueError(
            "an autoregressive model only continues: keep all levels of the first frames; use a "
            "masked transformer to fill gaps"
        )
    return codes.masked_fill(~given, -1)


def _noise(seed: int, ids: Sequence[int], shape: tuple[int, int]) -> Tensor:
    """Draw uniform noise in (0, 1), [B, S, K], seeded with (seed, id)."""
    draws = [np.random.default_rng((seed, item)).random(shape) for item in ids]
    return torch.from_numpy(np.stack(draws).astype(np.float32).clip(1e-7, 1 - 1e-7))
