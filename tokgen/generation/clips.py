"""Generate a list of utterances: codes from a model, and audio from the codes.

Continuation, infilling and editing keep some codes (see `tokgen.generation.prompts`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.long_audio import decode_blocks
from tokgen.codec.spec import DEPTH, Side
from tokgen.codec.stable.decoding import check_searchable
from tokgen.codec.stable.settings import Reached, StableDecoding
from tokgen.generation.autoregressive import sample_delay
from tokgen.generation.sampling import sample
from tokgen.generation.settings import SamplingSettings, check_seed
from tokgen.generation.windows import Windows, sample_windows
from tokgen.modelling.delay import DelayTransformer
from tokgen.modelling.depths import join_depth, split_depth
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.transformer import TokenTransformer
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import ClipStore
from tokgen.tokens.conditioning import Conditioning, ConditioningSettings

__all__ = ["FRAME_MULTIPLE", "Generated", "check_rate", "conditioning_for", "generate_clips"]

FRAME_MULTIPLE = 64  # pad to multiples of it on a GPU and under compile: few shapes


@dataclass(repr=False)
class Generated:
    """One generated utterance, on the CPU.

    Attributes:
        codes: int64 [K, T].
        waveform: float32 [1, N].
        seconds: time that sampling the batch took, divided by its number of utterances.
        reached: what stable decoding reached; None for plain decoding.
        depth: levels of each frame, int64 [T]; None if all frames have all levels. Codes past it
            are 0.
    """

    codes: Tensor
    waveform: Tensor
    seconds: float
    reached: Reached | None = None
    depth: Tensor | None = None

    def __repr__(self) -> str:
        levels, frames = self.codes.shape
        return (
            f"Generated({levels} levels x {frames} frames, {self.waveform.shape[-1]} samples, "
            f"sampled in {self.seconds:.2f} s)"
        )


def conditioning_for(model: TokenTransformer, waveforms: Sequence[Tensor]) -> list[Tensor]:
    """Compute the conditioning [T, C] of waveforms [1, N] with the settings of the model."""
    settings = model.config["conditioning"]
    if settings is None:
        raise ValueError(
            "the model has no conditioning settings: it speaks text (give text=, --text) or was "
            "made without conditioning"
        )
    features = Conditioning(ConditioningSettings(**settings))
    return [features(w[None])[0].T for w in waveforms]


def check_rate(model: TokenTransformer, codec: Codec) -> None:
    """Raise a ValueError if a codec has a variable bitrate, but the model has not."""
    if DEPTH in codec.side_names and not model.variable_depth:
        raise ValueError(
            f"{codec.spec.name} has a variable bitrate, but the model generates all levels of all "
            "frames: load the codec without a bitrate or level"
        )


def generate_clips(
    model: TokenTransformer,
    codec: Codec,
    n_samples: Sequence[int],
    settings: SamplingSettings,
    *,
    codes: Sequence[Tensor] | None = None,
    keep: Sequence[Tensor] | None = None,
    conditioning: Sequence[Tensor] | None = None,
    sides: Sequence[Side] | None = None,
    keep_depth: bool = False,
    seed: int = 0,
    item_ids: Sequence[int] | None = None,
    batch_size: int = 16,
    store: ClipStore | None = None,
    stable: bool | StableDecoding = False,
    windows: Windows | None = None,
    progress: bool = False,
) -> list[Generated]:
    """Generate utterances from their conditioning, from kept codes, or from both.

    Args:
        model: a model in eval mode, made for `codec`.
        codec: decodes the codes.
        n_samples: length of each utterance in samples; T is `codec.spec.n_frames` of it.
        settings: settings of the sampler.
        codes: int64 [K, T] per utterance; None generates all codes.
        keep: bool [K, T] per utterance, true at codes that stay as they are.
        conditioning: [T, C] per utterance (see `conditioning_for`); None generates without it.
        sides: side information per utterance, required if the codec has `side_names`. The model
            generates codes only, so pass that of real utterances
            (`tokgen.tokens.columns.sides_of`). A model of a variable bitrate generates the depth
            too: it needs that of frames with kept codes, as side information "depth".
        keep_depth: keep the depth in `sides` for all frames.
        seed: seed of all noise.
        item_ids: ids that, with the seed, select each utterance's noise; default 0, 1, 2 ...
        batch_size: utterances per batch. Batches hold utterances of similar length.
        store: saves each batch by id when it is done. A repeated call reads them from it.
        stable: decode so that the audio encodes to the generated codes, see `Codec.decode`.
        windows: generate longer utterances in windows; None generates all as a whole.
        progress: show a bar. For one utterance, it is shown if the work takes long.
    Returns:
        one `Generated` per utterance, in the order of the input.
    Raises:
        ValueError: the model was made for another codec; n_samples, seed or batch_size is out of
            range; codes, masks, conditioning and lengths do not match; side information is
            missing; or the codec or its bitrate cannot be decoded stably.
    """
    check_seed(seed)
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: must be at least 1")
    for n in n_samples:
        if n < 1:
            raise ValueError(f"n_samples = {n}: every utterance must have at least 1 sample")
    if codes is None or keep is None:
        if codes is not keep:
            raise ValueError("pass `codes` and `keep` together: the codes, and which to keep")
        shapes = [(model.n_codebooks, codec.spec.n_frames(n)) for n in n_samples]
        codes = [torch.zeros(shape, dtype=torch.int64) for shape in shapes]
        keep = [torch.zeros(shape, dtype=torch.bool) for shape in shapes]
    for c, k, n in zip(codes, keep, n_samples, strict=True):
        _check_frames(codec, c.shape[-1], n, "codes")
        if c.shape != k.shape:
            raise ValueError(
                f"codes {tuple(c.shape)} and keep {tuple(k.shape)}: pass one flag for each code"
            )
    for frames, n in zip(conditioning or [], n_samples, strict=conditioning is not None):
        _check_frames(codec, len(frames), n, "conditioning")
    n_frames = [c.shape[-1] for c in codes]
    model.check_codec(codec.spec)
    check_rate(model, codec)
    if stable is not False:
        if model.variable_depth:
            raise ValueError(
                "stable decoding of codes of variable depth is not supported: leave out stable"
            )
        check_searchable(codec)
    generated = {DEPTH} if model.variable_depth else set()
    needed = [name for name in codec.side_names if name not in generated]
    if needed and (sides is None or len(sides) != len(codes)):
        raise ValueError(
            f"{codec.spec.name} needs side information {needed} of "
            f"{len(codes)} utterances, which the model does not generate: pass `sides`, "
            "those of the utterances that the conditioning was computed from"
        )
    if model.variable_depth:
        codes, keep = _with_depth(codes, keep, sides, keep_depth)
    ids = range(len(codes)) if item_ids is None else item_ids
    device = next(model.parameters()).device
    static = settings.compile or device.type == "cuda"
    order = sorted(range(len(codes)), key=lambda i: n_frames[i])
    out: dict[int, Generated] = {}
    one = len(order) == 1
    with progress_bar(
        "generating", total=len(order), unit="clip", show=progress and not one
    ) as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            stored = [store.read(ids[i]) for i in batch] if store else []
            done = [arrays for arrays in stored if arrays is not None]
            if len(done) < len(batch):  # repeat the whole batch
                longest = n_frames[batch[-1]]
                multiple = -(-longest // FRAME_MULTIPLE) * FRAME_MULTIPLE
                padded = min(multiple, n_frames[order[-1]])
                began = time.perf_counter()
                sampled = sample_windows(
                    _sample,
                    model,
                    None if conditioning is None else _pad([conditioning[i].T for i in batch]),
                    torch.tensor([n_frames[i] for i in batch]),
                    settings,
                    shape=(min(batch_size, len(order)), padded) if static else None,
                    windows=windows,
                    progress=progress and one,
                    seed=seed,
                    item_ids=[ids[i] for i in batch],
                    codes=_pad([codes[i] for i in batch]),
                    keep=_pad([keep[i] for i in batch]),
                ).cpu()
                seconds = np.array((time.perf_counter() - began) / len(batch))
                done = [
                    {"codes": c[..., : n_frames[i]].numpy(), "seconds": seconds}
                    for i, c in zip(batch, sampled, strict=True)
                ]
                for i, arrays in zip(batch, done, strict=True):
                    if store:
                        store.write(ids[i], arrays)
            made = [torch.from_numpy(arrays["codes"]) for arrays in done]
            side = None if sides is None else [sides[i] for i in batch]
            depths: list[Tensor | None] = [None] * len(batch)
            if model.variable_depth:
                split = [split_depth(tokens) for tokens in made]
                made, depths = [codes for codes, _ in split], [depth for _, depth in split]
                given = side or [{}] * len(batch)
                side = [{**s, DEPTH: d.float()} for s, (_, d) in zip(given, split, strict=True)]
            lengths = [n_samples[i] for i in batch]
            reached: list[Reached | None] = [None] * len(batch)
            if stable is False and windows is not None and one:
                only = None if side is None else {k: v[None] for k, v in side[0].items()}
                blocks = decode_blocks(codec, made[0][None], lengths[0], only)
                audio = [torch.cat([block[0].cpu() for block in blocks], -1)]
            elif stable is False:
                audio = codec.decode_batch(made, lengths, side)
            else:
                found = [
                    codec.decode(c[None], n, stable=stable)
                    for c, n in zip(made, lengths, strict=True)
                ]
                audio = [waveform[0].cpu() for waveform, _ in found]
                reached = [r for _, r in found]
            parts = zip(batch, made, audio, reached, depths, done, strict=True)
            for i, c, w, r, depth, arrays in parts:
                out[i] = Generated(c, w, float(arrays["seconds"]), r, depth)
            bar.update(len(batch))
    return [out[i] for i in range(len(codes))]


def _sample(
    model: TokenTransformer,
    conditioning: Tensor | None,
    lengths: Tensor,
    settings: SamplingSettings,
    *,
    shape: tuple[int, int] | None = None,
    **options: Any,
) -> Tensor:
    """Generate codes as the kind of model does; only a masked one pads to a shape."""
    if isinstance(model, DelayTransformer):
        return sample_delay(model, conditioning, lengths, settings, **options)
    assert isinstance(model, MaskedTransformer)
    return sample(model, conditioning, lengths, settings, shape=shape, **options)


def _check_frames(codec: Codec, n_frames: int, n_samples: int, what: str) -> None:
    expected = codec.spec.n_frames(n_samples)
    if n_frames != expected:
        raise ValueError(
            f"{what} of {n_frames} frames for {n_samples} samples: {codec.spec.name} makes "
            f"{expected} frames of them"
        )


def _with_depth(
    codes: Sequence[Tensor],
    keep: Sequence[Tensor],
    sides: Sequence[Side] | None,
    keep_depth: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Put the depth before codes and masks [K, T]; it is kept where some code is."""
    tokens, kept = [], []
    for i, (c, k) in enumerate(zip(codes, keep, strict=True)):
        depth = None if sides is None else sides[i].get(DEPTH)
        given = k.any(0) | keep_depth
        if depth is None and given.any():
            raise ValueError(
                f"utterance {i} keeps codes or the depth, but has no depth: pass it in `sides`, as "
                "`encode_with_side` of a codec with a level or bitrate returns it"
            )
        depth = torch.ones(c.shape[-1]) if depth is None else depth.cpu()
        if len(depth) != c.shape[-1]:
            raise ValueError(f"depth of {len(depth)} frames for codes of {c.shape[-1]} frames")
        tokens.append(join_depth(c.cpu(), depth))
        kept.append(torch.cat([given[None], k]).cpu())
    return tokens, kept


def _pad(items: Sequence[Tensor]) -> Tensor:
    """Stack tensors [..., T_i], padded with zeros on the right."""
    longest = max(item.shape[-1] for item in items)
    return torch.stack([F.pad(item, (0, longest - item.shape[-1])) for item in items])
