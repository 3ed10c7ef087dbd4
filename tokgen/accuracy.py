"""How often a model's likeliest code is the right one, on held-out utterances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tokgen.held_out import HeldOut
from tokgen.masking import TrainingMask, cosine_schedule
from tokgen.model import MaskedTransformer, level_accuracy

TIMES = (0.125, 0.375, 0.625, 0.875)  # of the masking schedule: the middles of its quarters


@torch.inference_mode()
def token_accuracy(
    model: MaskedTransformer, held_out: HeldOut, *, seed: int = 0, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden codes that are guessed right, as in training, over all levels and four mask shares.

    Every level of every utterance is hidden four times, in the shares that the schedule has at
    `TIMES`; levels under it are visible, levels over it are not. Which positions are hidden comes
    from the seed and the utterance alone, the same for every model.

    Args:
        model: in eval mode.
        held_out: utterances; conditioning is shown where there is one.
        seed: of the masks.
        progress: show a bar.
    Returns:
        hits and counts of hidden codes, float64 [C, K] each for C utterances.
    """
    device = next(model.parameters()).device
    hits, seen = [], []
    bar = tqdm(total=len(held_out), unit="clip", desc="token accuracy", disable=not progress)
    with bar:
        for i, (codes, item) in enumerate(zip(held_out.codes, held_out.items, strict=True)):
            mask = _masks(codes, model.mask_id, (seed, item))
            n = len(mask.level)
            conditioning = None
            if held_out.conditioning is not None:
                conditioning = held_out.conditioning[i].T.expand(n, -1, -1).to(device)
            logits = model(mask.tokens.to(device), conditioning, level=mask.level.to(device)).cpu()
            found = level_accuracy(logits, codes.expand(n, -1, -1), mask, len(codes))
            hits.append(found[0].double().numpy())
            seen.append(found[1].double().numpy())
            bar.update()
    return np.stack(hits), np.stack(seen)


def _masks(codes: Tensor, mask_id: int, seeds: tuple[int, int]) -> TrainingMask:
    """codes [K, T] -> one mask for each level and time, levels in order."""
    n_levels, n_frames = codes.shape
    rng = np.random.default_rng(seeds)
    level = torch.arange(n_levels).repeat_interleave(len(TIMES))
    order = torch.from_numpy(rng.random((len(level), n_frames))).argsort(-1).argsort(-1)
    count = [max(1, round(float(cosine_schedule(t)) * n_frames)) for t in TIMES]
    target = order < torch.tensor(count * n_levels)[:, None]
    above = torch.arange(n_levels)[None, :, None]
    hidden = (above > level[:, None, None]) | ((above == level[:, None, None]) & target[:, None])
    return TrainingMask(
        codes.expand(len(level), -1, -1).masked_fill(hidden, mask_id), level, target
    )
