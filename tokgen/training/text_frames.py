"""Training of a masked transformer that speaks: its conditioning comes from a text model.

tokens = with_text_frames(tokens, text_model)
model = speaking_transformer(codec, text_model, ModelSettings("small"))
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from tokgen.codec.base import Codec
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.settings import ModelSettings
from tokgen.modelling.text.model import TextModel
from tokgen.runs.progress import progress_bar, quiet_libraries
from tokgen.tokens.columns import TEXT_FRAMES, conditioning_of, matrices
from tokgen.tokens.conditioning import CONDITIONINGS
from tokgen.tokens.dataset import TokenDataset
from tokgen.tokens.opening import with_provenance

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["speaking_transformer", "with_text_frames"]


def with_text_frames(
    tokens: TokenDataset, model: TextModel, *, progress: bool = True
) -> TokenDataset:
    """Replace the conditioning of a token dataset by the frames of its texts.

    The durations of the symbols are those of the speech, which the model aligns. Rows without a
    text, or with more symbols than frames, are left out, with a warning that counts them.

    Args:
        tokens: tokens with texts and the conditioning that the model was trained on.
        model: a text model in eval mode.
        progress: show a bar.
    Raises:
        ValueError: no row of the train split is left.
    """
    from datasets import DatasetDict

    splits = {}
    n = sum(len(part) for part in tokens.splits.values())
    with progress_bar("aligning", total=n, unit="clip", show=progress) as bar:
        for name, part in tokens.splits.items():
            found = _aligned(part, model, bar)
            if found is not None:
                splits[name] = found
    if "train" in tokens.splits and "train" not in splits:
        raise ValueError("no training clip has a text that fits in its frames: add transcripts")
    provenance = replace(tokens.provenance, conditioning=None)
    return TokenDataset(with_provenance(DatasetDict(splits), provenance), provenance)


def _aligned(part: Dataset, model: TextModel, bar: Any) -> Dataset | None:
    """Rows of a split with `TEXT_FRAMES` as their conditioning; None if none are left."""
    from datasets import Dataset, concatenate_datasets

    rows, frames = [], []
    for i, text in enumerate(part["text"]):
        bar.update()
        try:
            if not text or not text.strip():
                continue
            heard = conditioning_of(part.select([i]))
            assert heard is not None
            durations = model.align(text, heard[0])
        except ValueError:  # nothing to say, or too little time to say it
            continue
        rows.append(i)
        frames.append(model.frames([text], [durations])[0].half().numpy())
    if left := len(part) - len(rows):
        warnings.warn(
            f"left out {left} of {len(part)} clips: no transcript, or fewer frames than symbols",
            stacklevel=3,
        )
    if not rows:
        return None
    column = Dataset(pa.table({TEXT_FRAMES: matrices(frames)}))
    kept = part.select(rows).remove_columns([c for c in CONDITIONINGS if c in part.column_names])
    with quiet_libraries():
        return concatenate_datasets([kept.flatten_indices(), column], axis=1)


def speaking_transformer(
    codec: Codec, model: TextModel, settings: ModelSettings, **overrides: Any
) -> MaskedTransformer:
    """Create a masked transformer whose conditioning is the frames of a text model.

    Args:
        codec: codec of the tokens.
        model: trained text model. Its features are standardised, the other values are not.
        settings: size of the transformer.
        overrides: as in `MaskedTransformer.for_codec`.
    """
    plain = model.conditioning_dim - model.n_features
    about: dict[str, Any] = {
        "conditioning_dim": model.conditioning_dim,
        "conditioning_mean": [0.0] * plain + model.mean.tolist(),
        "conditioning_std": [1.0] * plain + model.std.tolist(),
    }
    with torch.no_grad():
        return MaskedTransformer.for_codec(codec, **{**settings.arguments(), **about, **overrides})
