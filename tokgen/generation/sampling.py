"""Decoding level by level: MaskGIT's confidence-based unmasking within each level, with guidance.

SoundStorm (Borsos et al. 2023) and Code Drift, section V. Noise of an item comes from the seed
and its own id, so what is generated does not depend on what it is batched with.

How many codes stay hidden after each step is known before the first, so that nothing in the loop
has to come back from a GPU. There, and under `compile`, every step has the same shapes; on a CPU
only the hidden positions are given to the head and drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import n_masked


@dataclass(frozen=True)
class SamplingSettings:
    """How to sample.

    Attributes:
        steps: per level, coarse first; the last counts for all further levels.
        temperature: divides the logits.
        top_p: nucleus; 1 keeps the whole distribution.
        mask_temperature: scale of the Gumbel noise on confidences, falling linearly to 0.
        guidance_scale: w in u + w (c - u); 1 is off.
        compile: call the model through `torch.compile`; codes may differ where two are as likely
            but for rounding.
    """

    steps: tuple[int, ...] = (16, 1)
    temperature: float = 1.0
    top_p: float = 0.85
    mask_temperature: float = 10.5
    guidance_scale: float = 2.0
    compile: bool = False

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
    shape: tuple[int, int] | None = None,
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
        shape: items and frames that the model is to see, filled up with blanks: calls of one
            shape share a compiled graph. None: those there are.
        progress: show a bar.
    Returns:
        int64 [B, n_codebooks, T]; 0 past each item's end.
    Raises:
        ValueError: `keep` without `codes`, either of another shape, a MASK to keep, n_codebooks
            outside 1..K, or a `shape` that is too small.
    """
    n_levels = model.n_codebooks if n_codebooks is None else n_codebooks
    if not 1 <= n_levels <= model.n_codebooks:
        raise ValueError(f"n_codebooks = {n_levels}: the model has levels 1..{model.n_codebooks}")
    device = next(model.parameters()).device
    static = settings.compile or shape is not None or device.type == "cuda"
    frames = lengths.tolist()
    n_items, n_frames = shape or (len(frames), max(frames))
    blank = (n_items - len(frames), n_frames - max(frames))
    if min(blank) < 0:
        raise ValueError(f"shape = {shape}: {len(frames)} items of {max(frames)} frames do not fit")
    ids = list(range(len(frames))) if item_ids is None else list(item_ids)
    inside = torch.arange(n_frames) < torch.tensor(frames + [0] * blank[0])[:, None]
    known, given = _known(model, codes, keep, inside[: len(frames), : max(frames)])
    known, given = _fill(known, blank).to(device), _fill(given, blank).to(device)
    inside = inside.to(device)
    turns, stay = _plan((inside[:, None] & ~given).sum(-1).T.cpu()[:n_levels], settings)
    noise = _noise(seed, ids, turns, frames, (n_items, n_frames))
    stays = dict(zip(turns, stay.to(device), strict=True))
    noises = dict(zip(turns, noise.to(device), strict=True))
    ask = _guided(model, conditioning, frames, blank, settings)

    tokens = torch.full((n_items, model.n_codebooks, n_frames), model.mask_id, device=device)
    total_steps = sum(settings.at(k) for k in range(n_levels))
    with tqdm(total=total_steps, unit="step", desc="sampling", disable=not progress) as bar:
        for level in range(n_levels):
            # Only this level is filled in: levels above stay MASK, as in training.
            tokens[:, level] = torch.where(given[:, level], known[:, level], tokens[:, level])
            hidden = inside & ~given[:, level]
            for step in range(settings.at(level)):
                bar.update()
                if (level, step) not in stays:
                    continue  # all is given or settled: nothing to ask the model
                uniform, shuffle = noises[level, step]
                if static:
                    drawn, log_p = _draw(ask(tokens, level, None), settings.top_p, uniform)
                else:
                    found = _draw(ask(tokens, level, hidden), settings.top_p, uniform[hidden])
                    drawn, log_p = (_spread(values, hidden) for values in found)
                now = torch.where(hidden, drawn, tokens[:, level])
                left = 1 - (step + 1) / settings.at(level)
                gumbel = -torch.log(-torch.log(shuffle))
                confidence = log_p + settings.mask_temperature * left * gumbel
                confidence = confidence.masked_fill(~hidden, torch.inf)
                rank = confidence.argsort(-1).argsort(-1)  # 0 is the least confident
                hidden = hidden & (rank < stays[level, step][:, None])
                tokens[:, level] = now.masked_fill(hidden, model.mask_id)
    return tokens.masked_fill(~inside[:, None], 0)[: len(frames), :n_levels, : max(frames)]


def _known(
    model: MaskedTransformer, codes: Tensor | None, keep: Tensor | None, inside: Tensor
) -> tuple[Tensor, Tensor]:
    """Codes and where they are given, [B, K, T] each; nothing is where neither is passed."""
    wanted = (len(inside), model.n_codebooks, inside.shape[1])
    if codes is None and keep is None:
        return torch.zeros(wanted, dtype=torch.int64), torch.zeros(wanted, dtype=torch.bool)
    if codes is None or keep is None:
        raise ValueError("give `codes` and `keep` together: what is known, and where")
    if not codes.shape == keep.shape == wanted:
        raise ValueError(
            f"codes {tuple(codes.shape)} and keep {tuple(keep.shape)}: expected {wanted}; "
            "`keep` says which of the codes count"
        )
    codes, given = codes.cpu(), keep.cpu() & inside[:, None]
    if ((codes < 0) | (codes >= model.codebook_size))[given].any():
        raise ValueError(
            f"codes to keep lie outside 0..{model.codebook_size - 1}: a MASK among them?"
        )
    return codes, given


def _plan(to_fill: Tensor, settings: SamplingSettings) -> tuple[list[tuple[int, int]], Tensor]:
    """The (level, step) that have something to do, and how many codes stay hidden after each.

    Args:
        to_fill: int64 [K, B], hidden positions at the start of each level.
    Returns:
        S of them, and int64 [S, B].
    """
    turns, stays = [], [to_fill[:0]]
    for level, first in enumerate(to_fill):
        hidden = first
        for step in range(settings.at(level)):
            if not hidden.any():
                break
            hidden = n_masked(step, settings.at(level), first, hidden)
            turns.append((level, step))
            stays.append(hidden[None])
    return turns, torch.cat(stays)


def _guided(
    model: MaskedTransformer,
    conditioning: Tensor | None,
    frames: Sequence[int],
    blank: tuple[int, int],
    settings: SamplingSettings,
) -> Callable[[Tensor, int, Tensor | None], Tensor]:
    """What gives the logits over the temperature; with guidance both passes go as one batch.

    Args:
        conditioning: [B, C, T] or None.
        frames: of the B items.
        blank: items and frames that the tokens have more.
    Returns:
        a function of tokens [B, K, T], level and hidden positions bool [B, T] that gives
        [n, V] for those, [B, T, V] for None.
    """
    device = next(model.parameters()).device
    call = torch.compile(model) if settings.compile else model
    n_frames = max(frames) + blank[1]
    # A blank item attends to its blanks: to attend to nothing is not a number.
    sizes = torch.tensor([*frames, *[n_frames] * blank[0]])
    lengths = None if (sizes == n_frames).all() else sizes.to(device)  # no mask is faster
    if conditioning is not None:
        conditioning = _fill(conditioning.to(device), blank)
    if conditioning is None or settings.guidance_scale == 1.0:

        def single(tokens: Tensor, level: int, where: Tensor | None) -> Tensor:
            logits = call(tokens, conditioning, lengths=lengths, level=level, where=where)
            return logits.float().div_(settings.temperature)

        return single
    drop = (torch.arange(2 * len(sizes)) >= len(sizes)).to(device)
    twice = conditioning.repeat(2, 1, 1)
    lengths = None if lengths is None else lengths.repeat(2)

    def both(tokens: Tensor, level: int, where: Tensor | None) -> Tensor:
        logits = call(
            tokens.repeat(2, 1, 1),
            twice,
            drop_conditioning=drop,
            lengths=lengths,
            level=level,
            where=None if where is None else where.repeat(2, 1),
        )
        given, free = logits.float().chunk(2)
        return (given - free).mul_(settings.guidance_scale).add_(free).div_(settings.temperature)

    return both


def _draw(logits: Tensor, top_p: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """One code per position from the nucleus, by inverting the cumulative distribution.

    Args:
        logits: [..., V].
        noise: uniform in (0, 1), [...].
    Returns:
        codes [...] and their log-probabilities [...] before the nucleus was cut.
    """
    log_p = logits.log_softmax(-1)
    ordered, order = _descending(log_p)
    p = ordered.exp()
    cumulative = p.cumsum(-1)
    size = p.sub_(cumulative).neg_().lt(top_p).sum(-1, keepdim=True)  # by the mass before each
    size = size.clamp_(min=1)  # the likeliest code always stays
    threshold = noise[..., None] * cumulative.gather(-1, size - 1)
    pick = torch.searchsorted(cumulative, threshold).minimum(size - 1)
    drawn, value = order.gather(-1, pick), ordered.gather(-1, pick)
    if log_p.device.type == "cpu":  # of codes as likely, the one that torch's sort has there
        tied = (ordered == value).sum(-1) > 1
        drawn[tied] = log_p[tied].sort(dim=-1, descending=True)[1].gather(-1, pick[tied])
    return drawn[..., 0], value[..., 0]


def _descending(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """log_p float32 [..., V], none above 0, sorted, and the order.

    On a CPU numpy sorts 64-bit integers several times as fast as torch sorts numbers with their
    places: the bits of -log_p, which rise as it does, before those of the place.
    """
    if log_p.device.type != "cpu":
        return log_p.sort(dim=-1, descending=True)
    keys = (log_p.abs().view(torch.int32).long() << 32).add_(torch.arange(log_p.shape[-1]))
    keys.numpy().sort(axis=-1)
    return (keys >> 32).int().view(torch.float32).neg_(), keys & 0xFFFFFFFF


def _spread(values: Tensor, where: Tensor) -> Tensor:
    """values [n] at their places in zeros [B, T]."""
    return torch.zeros(where.shape, dtype=values.dtype).masked_scatter(where, values)


def _noise(
    seed: int,
    ids: Sequence[int],
    turns: Sequence[tuple[int, int]],
    frames: Sequence[int],
    shape: tuple[int, int],
) -> Tensor:
    """Uniform noise [S, 2, B, T] in (0, 1), each item's from (seed, id, level, step) alone."""
    out = np.full((len(turns), 2, *shape), 0.5, dtype=np.float32)
    for turn, (level, step) in zip(out, turns, strict=True):
        for i, (item, n) in enumerate(zip(ids, frames, strict=True)):
            rng = np.random.default_rng((seed, item, level, step))
            turn[:, i, :n] = rng.random((n, 2)).T.clip(1e-7, 1 - 1e-7)
    return torch.from_numpy(out)


def _fill(batch: Tensor, blank: tuple[int, int]) -> Tensor:
    """[B, C, T] and so many items and frames of zeros more."""
    return F.pad(batch, (0, blank[1], 0, 0, 0, blank[0]))
