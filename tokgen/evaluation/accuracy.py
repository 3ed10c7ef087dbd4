"""Token accuracy: how often the likeliest code of a model is right, on held-out utterances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tokgen.generation.held_out import HeldOut
from tokgen.modelling.depths import join_depth, live_levels
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import TrainingMask, cosine_schedule, level_accuracy
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import ClipStore

__all__ = ["TIMES", "token_accuracy"]

TIMES = (0.125, 0.375, 0.625, 0.875)  # middles of the quarters of the masking schedule


@torch.inference_mode()
def token_accuracy(
    model: MaskedTransformer,
    held_out: HeldOut,
    *,
    seed: int = 0,
    store: ClipStore | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Count the hidden codes that a model guesses right, for all levels and four mask shares.

    Every level of every utterance is masked four times, with the shares that the schedule has at
    `TIMES`. Lower levels are visible, higher levels are hidden. The hidden positions depend only on
    the seed and the utterance, so they are the same for every model. With a variable bitrate, only
    codes up to the depth are masked, and the depth is visible.

    Args:
        model: model in eval mode.
        held_out: utterances, with conditioning if the model uses it.
        seed: seed of the masks.
        store: keeps the counts of finished utterances, so the same call resumes after a kill.
    Returns:
        Hits and counts of hidden codes, float64 [C, K] each for C utterances. A level has none in
        an utterance that is never that deep.
    """
    found = []
    bar = progress_bar("token accuracy", total=len(held_out), unit="clip", show=progress)
    with bar:
        for i in range(len(held_out)):
            counts = store.read(i) if store else None
            if counts is None:
                counts = _count(model, held_out, i, seed)
                if store:
                    store.write(i, counts)
            found.append(counts)
            bar.update()
    return np.stack([c["hits"] for c in found]), np.stack([c["hidden"] for c in found])


def _count(model: MaskedTransformer, held_out: HeldOut, i: int, seed: int) -> dict[str, np.ndarray]:
    """Count hits and hidden codes [K] of one utterance."""
    codes, live, depths = held_out.codes[i], None, held_out.depths
    if depths is not None:
        codes = join_depth(codes, depths[i])
        live = live_levels(codes)
    mask = _masks(codes, model.mask_id, (seed, held_out.items[i]), live)
    n, device = len(mask.level), next(model.parameters()).device
    conditioning = None
    if held_out.conditioning is not None:
        conditioning = held_out.conditioning[i].T.expand(n, -1, -1).to(device)
    logits = model(mask.tokens.to(device), conditioning, level=mask.level.to(device)).cpu()
    hits, hidden = level_accuracy(logits, codes.expand(n, -1, -1), mask, len(codes))
    of_codes = slice(0 if live is None else 1, None)
    return {"hits": hits[of_codes].double().numpy(), "hidden": hidden[of_codes].double().numpy()}


def _masks(
    codes: Tensor, mask_id: int, seeds: tuple[int, int], live: Tensor | None = None
) -> TrainingMask:
    """Make one mask for each level and time from codes [K, T], in the order of levels.

    With live positions [K + 1, T], level 0 of the codes is the depth, which gets no mask.
    """
    n_levels, n_frames = codes.shape
    rng = np.random.default_rng(seeds)
    level = torch.arange(0 if live is None else 1, n_levels).repeat_interleave(len(TIMES))
    noise = torch.from_numpy(rng.random((len(level), n_frames)))
    sizes = [n_frames] * n_levels
    if live is not None:
        noise = noise.masked_fill(~live[level], 2.0)
        sizes = live.sum(-1).tolist()
    order = noise.argsort(-1).argsort(-1)
    shares = [float(cosine_schedule(t)) for t in TIMES]
    pairs = zip(level.tolist(), shares * (len(level) // len(shares)), strict=True)
    count = [min(sizes[k], max(1, round(share * sizes[k]))) for k, share in pairs]
    target = order < torch.tensor(count)[:, None]
    above = torch.arange(n_levels)[None, :, None]
    hidden = (above > level[:, None, None]) | ((above == level[:, None, None]) & target[:, None])
    return TrainingMask(
        codes.expand(len(level), -1, -1).masked_fill(hidden, mask_id), level, target
    )
