"""Anchors of speaker similarity: what the same voice and another voice reach.

A cosine of 0.85 says little by itself. The similarity of a clip with other clips of its speaker is
what a perfect copy of the voice reaches; that with clips of other speakers is what a wrong voice
reaches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tokgen.evaluation.metric import METRICS
from tokgen.metrics.statistics import bootstrap_mean
from tokgen.metrics.tables import Row

__all__ = ["OTHER_SPEAKER", "SAME_SPEAKER", "speaker_anchors"]

SAME_SPEAKER = "same speaker, other clips"
OTHER_SPEAKER = "other speakers"


def speaker_anchors(
    embeddings: Sequence[Tensor | None], speakers: Sequence[str | None]
) -> tuple[list[Row], list[str]]:
    """Return a row for each anchor, and notes that say why there is none.

    The value of a clip is its mean similarity with all other clips of its speaker, or with all
    clips of other speakers. Clips without speaker or embedding are left out.

    Args:
        embeddings: [D] of norm 1 of each original; None for a clip without one.
        speakers: name of each speaker; None if it is unknown.
    """
    label = METRICS["speaker"].label
    known = [
        (e.double().numpy(), s)
        for e, s in zip(embeddings, speakers, strict=True)
        if e is not None and s is not None
    ]
    if not known:
        why = "no clip has a voice" if any(speakers) else "the speakers of the clips are not known"
        return [], [f"{label} has no anchors: {why}"]
    vectors, names = np.stack([e for e, _ in known]), np.array([s for _, s in known])
    same = names[:, None] == names
    pairs = {SAME_SPEAKER: same & ~np.eye(len(names), dtype=bool), OTHER_SPEAKER: ~same}
    reasons = {
        SAME_SPEAKER: "no speaker has two clips",
        OTHER_SPEAKER: f"all clips have the speaker {names[0]}",
    }
    cosines = np.clip(vectors @ vectors.T, -1, 1)
    rows, notes = [], []
    for name, chosen in pairs.items():
        counts = chosen.sum(1)
        if not counts.any():
            notes.append(f'{label} has no anchor "{name}": {reasons[name]}')
            continue
        sums = np.where(chosen, cosines, 0).sum(1)
        means = [s / n if n else math.nan for s, n in zip(sums, counts, strict=True)]
        found = bootstrap_mean([m for m in means if not math.isnan(m)], limits=(-1, 1))
        rows.append(Row(name, "original", None, {"speaker": found}))
    if rows:
        notes.append(
            f'anchors of {label}: "{SAME_SPEAKER}" and "{OTHER_SPEAKER}" compare originals with '
            "each other"
        )
    return rows, notes
