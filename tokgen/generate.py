"""Conditioning -> codes -> waveform, for lists of utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from tokgen.codec import Codec, Side
from tokgen.mfcc import Mfcc, MfccSettings
from tokgen.model import MaskedTransformer
from tokgen.sampling import SamplingSettings, sample


@dataclass
class Generated:
    """codes int64 [K, T] and waveform float32 [1, N], on the CPU."""

    codes: Tensor
    waveform: Tensor


def mfcc_of(model: MaskedTransformer, waveforms: Sequence[Tensor]) -> list[Tensor]:
    """The conditioning [T, C] of waveforms [1, N] with the settings the model was trained on."""
    settings = model.config["conditioning"]
    if settings is None:
        raise ValueError("the model's config holds no conditioning settings: pass `conditioning`")
    mfcc = Mfcc(MfccSettings(**settings))
    return [mfcc(w[None])[0].T for w in waveforms]


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
    progress: bool = False,
) -> list[Generated]:
    """Generate utterances from their conditioning; batches hold utterances of like length.

    Args:
        model: in eval mode, made for `codec`.
        codec: turns codes into audio.
        conditioning: [T, C] of each utterance (`mfcc_of`).
        n_samples: length of each in samples; T must be `codec.spec.n_frames` of it.
        settings: of the sampler.
        sides: side information [S] of each, for a codec that has `side_names`: the model makes
            codes alone, so it is that of real utterances (`tokgen.token_dataset.sides_of`).
        seed, item_ids: an utterance's noise comes from the seed and its id; default its index.
        batch_size: utterances at once.
        unconditional: hide the conditioning: the floor that conditioning must beat.
        progress: show a bar.
    Returns:
        one `Generated` each, in the order given.
    Raises:
        ValueError: another codec, conditioning and lengths that do not fit, or side information
            missing.
    """
    model.check_codec(codec.spec)
    if codec.side_names and (sides is None or len(sides) != len(conditioning)):
        raise ValueError(
            f"{codec.spec.name} needs side information {list(codec.side_names)} of "
            f"{len(conditioning)} utterances, which the model does not generate: pass `sides`, "
            "those of the utterances that gave the conditioning"
        )
    ids = list(range(len(conditioning))) if item_ids is None else list(item_ids)
    for c, n in zip(conditioning, n_samples, strict=True):
        if len(c) != codec.spec.n_frames(n):
            raise ValueError(
                f"conditioning of {len(c)} frames for {n} samples: {codec.spec.name} has "
                f"{codec.spec.n_frames(n)} frames there"
            )
    device = next(model.parameters()).device
    order = sorted(range(len(conditioning)), key=lambda i: len(conditioning[i]))
    out: list[Generated | None] = [None] * len(order)
    with tqdm(total=len(order), unit="clip", desc="generating", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            lengths = torch.tensor([len(conditioning[i]) for i in members])
            longest = int(lengths.max())
            batch = torch.stack(
                [
                    F.pad(conditioning[i].T.float(), (0, longest - len(conditioning[i])))
                    for i in members
                ]
            )
            codes = sample(
                model,
                None if unconditional else batch.to(device),
                lengths,
                settings,
                seed=seed,
                item_ids=[ids[i] for i in members],
            ).cpu()
            trimmed = [c[:, :n] for c, n in zip(codes, lengths.tolist(), strict=True)]
            side = None if sides is None else [sides[i] for i in members]
            audio = codec.decode_batch(trimmed, [n_samples[i] for i in members], side)
            for i, c, w in zip(members, trimmed, audio, strict=True):
                out[i] = Generated(c, w)
            bar.update(len(members))
    return [g for g in out if g is not None]
