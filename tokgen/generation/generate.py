"""Conditioning, or part of the codes, -> codes -> waveform, for lists of utterances.

`vocode` makes everything from the conditioning; `regenerate` keeps the codes it is told to keep
(`tokgen.generation.prompts`): continuation, infilling, editing. It is the same model and sampler.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from tokgen.codec.base import Codec
from tokgen.codec.spec import Side
from tokgen.generation.sampling import SamplingSettings, sample
from tokgen.modelling.masked import MaskedTransformer
from tokgen.runs.store import ClipStore
from tokgen.tokens.conditioning import Conditioning, ConditioningSettings

FRAMES_APART = 64  # lengths that a compiled model or a GPU is shown: few shapes, little padding


@dataclass
class Generated:
    """codes int64 [K, T] and waveform float32 [1, N], on the CPU.

    `seconds` is the clip's share of the time that sampling its batch took.
    """

    codes: Tensor
    waveform: Tensor
    seconds: float


def conditioning_for(model: MaskedTransformer, waveforms: Sequence[Tensor]) -> list[Tensor]:
    """The conditioning [T, C] of waveforms [1, N] with the settings the model was trained on."""
    settings = model.config["conditioning"]
    if settings is None:
        raise ValueError("the model's config holds no conditioning settings: pass `conditioning`")
    features = Conditioning(ConditioningSettings(**settings))
    return [features(w[None])[0].T for w in waveforms]


def vocode(
    model: MaskedTransformer,
    codec: Codec,
    conditioning: Sequence[Tensor],
    n_samples: Sequence[int],
    settings: SamplingSettings,
    *,
    sides: Sequence[Side] | None = None,
    seed: int = 0,
    item_ids: Sequence[int] | None = None,
    batch_size: int = 16,
    unconditional: bool = False,
    store: ClipStore | None = None,
    progress: bool = False,
) -> list[Generated]:
    """Generate utterances from their conditioning; batches hold utterances of like length.

    Args:
        model: in eval mode, made for `codec`.
        codec: turns codes into audio.
        conditioning: [T, C] of each utterance (`conditioning_for`).
        n_samples: length of each in samples; T must be `codec.spec.n_frames` of it.
        settings: of the sampler.
        sides: side information [S] of each, for a codec that has `side_names`: the model makes
            codes alone, so it is that of real utterances (`tokgen.tokens.dataset.sides_of`).
        seed, item_ids: an utterance's noise comes from the seed and its id; default its index.
        batch_size: utterances at once.
        unconditional: hide the conditioning: the floor that conditioning must beat.
        store: keeps finished batches by id, so that the same call goes on after a kill.
        progress: show a bar.
    Returns:
        one `Generated` each, in the order given.
    Raises:
        ValueError: another codec, conditioning and lengths that do not fit, or side information
            missing.
    """
    for c, n in zip(conditioning, n_samples, strict=True):
        _check_frames(codec, len(c), n, "conditioning")
    return _generate(
        model,
        codec,
        [len(c) for c in conditioning],
        n_samples,
        settings,
        conditioning=None if unconditional else conditioning,
        sides=sides,
        seed=seed,
        item_ids=item_ids,
        batch_size=batch_size,
        store=store,
        progress=progress,
    )


def regenerate(
    model: MaskedTransformer,
    codec: Codec,
    codes: Sequence[Tensor],
    keep: Sequence[Tensor],
    n_samples: Sequence[int],
    settings: SamplingSettings,
    *,
    conditioning: Sequence[Tensor] | None = None,
    sides: Sequence[Side] | None = None,
    seed: int = 0,
    item_ids: Sequence[int] | None = None,
    batch_size: int = 16,
    store: ClipStore | None = None,
    progress: bool = False,
) -> list[Generated]:
    """Generate the codes that are not kept, around those that are.

    Args:
        codes: int64 [K, T] of each utterance.
        keep: bool [K, T] of each; true codes come back as they are.
        conditioning: [T, C] of each, or None to generate from the kept codes alone.
        model, codec, n_samples, settings, sides, seed, item_ids, batch_size, store, progress: as
            in `vocode`.
    Returns:
        one `Generated` each, in the order given.
    Raises:
        ValueError: as `vocode`, or codes, masks and lengths that do not fit.
    """
    for c, k, n in zip(codes, keep, n_samples, strict=True):
        _check_frames(codec, c.shape[-1], n, "codes")
        if c.shape != k.shape:
            raise ValueError(
                f"codes {tuple(c.shape)} and keep {tuple(k.shape)}: give one flag for each code"
            )
    for frames, c in zip(conditioning or [], codes, strict=conditioning is not None):
        if len(frames) != c.shape[-1]:
            raise ValueError(f"conditioning of {len(frames)} frames for {c.shape[-1]} of codes")
    return _generate(
        model,
        codec,
        [c.shape[-1] for c in codes],
        n_samples,
        settings,
        conditioning=conditioning,
        known=list(zip(codes, keep, strict=True)),
        sides=sides,
        seed=seed,
        item_ids=item_ids,
        batch_size=batch_size,
        store=store,
        progress=progress,
    )


def _check_frames(codec: Codec, n_frames: int, n_samples: int, what: str) -> None:
    wanted = codec.spec.n_frames(n_samples)
    if n_frames != wanted:
        raise ValueError(
            f"{what} of {n_frames} frames for {n_samples} samples: {codec.spec.name} has "
            f"{wanted} frames there"
        )


def _generate(
    model: MaskedTransformer,
    codec: Codec,
    n_frames: Sequence[int],
    n_samples: Sequence[int],
    settings: SamplingSettings,
    *,
    conditioning: Sequence[Tensor] | None,
    known: Sequence[tuple[Tensor, Tensor]] | None = None,
    sides: Sequence[Side] | None,
    seed: int,
    item_ids: Sequence[int] | None,
    batch_size: int,
    store: ClipStore | None,
    progress: bool,
) -> list[Generated]:
    model.check_codec(codec.spec)
    if codec.side_names and (sides is None or len(sides) != len(n_frames)):
        raise ValueError(
            f"{codec.spec.name} needs side information {list(codec.side_names)} of "
            f"{len(n_frames)} utterances, which the model does not generate: pass `sides`, "
            "those of the utterances that gave the conditioning"
        )
    ids = list(range(len(n_frames))) if item_ids is None else list(item_ids)
    device = next(model.parameters()).device
    static = settings.compile or device.type == "cuda"
    order = sorted(range(len(n_frames)), key=lambda i: n_frames[i])
    out: dict[int, Generated] = {}
    with tqdm(total=len(order), unit="clip", desc="generating", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            found = [store.read(ids[i]) if store else None for i in members]
            if any(arrays is None for arrays in found):  # batches stay as they are on a resume
                began = time.perf_counter()
                longest = max(n_frames[i] for i in members)
                padded = min(-(-longest // FRAMES_APART) * FRAMES_APART, max(n_frames))
                sampled = sample(
                    model,
                    None if conditioning is None else _pad([conditioning[i].T for i in members]),
                    torch.tensor([n_frames[i] for i in members]),
                    settings,
                    seed=seed,
                    item_ids=[ids[i] for i in members],
                    codes=None if known is None else _pad([known[i][0] for i in members]),
                    keep=None if known is None else _pad([known[i][1] for i in members]),
                    shape=(min(batch_size, len(order)), padded) if static else None,
                ).cpu()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds = (time.perf_counter() - began) / len(members)
                codes = [c[:, : n_frames[i]] for c, i in zip(sampled, members, strict=True)]
                if store:
                    for i, c in zip(members, codes, strict=True):
                        content = {"codes": c.numpy(), "seconds": np.array(seconds)}
                        store.write(ids[i], content)
                times = [seconds] * len(members)
            else:
                arrays = [a for a in found if a is not None]
                codes = [torch.from_numpy(a["codes"]) for a in arrays]
                times = [float(a["seconds"]) for a in arrays]
            side = None if sides is None else [sides[i] for i in members]
            audio = codec.decode_batch(codes, [n_samples[i] for i in members], side)
            for i, c, w, s in zip(members, codes, audio, times, strict=True):
                out[i] = Generated(c, w, s)
            bar.update(len(members))
    return [out[i] for i in range(len(n_frames))]


def _pad(items: Sequence[Tensor]) -> Tensor:
    """Stack [..., T_i], filled up on the right."""
    longest = max(item.shape[-1] for item in items)
    return torch.stack([F.pad(item, (0, longest - item.shape[-1])) for item in items])
