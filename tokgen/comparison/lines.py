"""Lines of a comparison before they are scored: audio of one codec, one list of clips a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from tokgen.comparison.compare import RowData
from tokgen.evaluation.pool import ScoringPool
from tokgen.evaluation.samples import Column
from tokgen.evaluation.scorer import Scorer, score_clips
from tokgen.generation.held_out import HeldOut
from tokgen.metrics.statistics import Estimate


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        name: of the line.
        kind: "original", "resynthesis" or "generated".
        held_out: the utterances, with the originals that are compared with.
        clips: waveforms [1, N] of the utterances, one list a training seed.
        more: further fields for the records, a list a seed: `accuracy_records`, "drift_pesq".
        extra: numbers of the line as a whole.
    """

    name: str
    kind: str
    held_out: HeldOut
    clips: Sequence[Sequence[Tensor]]
    more: Sequence[Sequence[Mapping[str, float]]] | None = None
    extra: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def codec(self) -> str | None:
        """Its name; None for originals."""
        return None if self.kind == "original" else self.held_out.codec.spec.name

    def column(self) -> Column:
        """The first seed's clips, to listen to."""
        rate = self.held_out.codec.spec.sample_rate
        return Column(self.name, self.kind, self.codec, rate, self.clips[0])


def score_lines(
    scorer: Scorer,
    lines: Sequence[Line],
    out: Path,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> list[RowData]:
    """Score every clip against its original.

    Args:
        scorer: what scores.
        lines: all with the same utterances.
        out: finished clips are kept there, so that the same call goes on after a kill.
        workers: processes that score (`tokgen.evaluation.pool`); None for one a core, 0 for none.
        progress: show a bar.
    """
    rows = []
    total = sum(len(clips) for line in lines for clips in line.clips)
    with (
        ScoringPool(scorer, workers) as pool,
        tqdm(total=total, unit="clip", desc="scoring", disable=not progress) as bar,
    ):
        for line in lines:
            by_seed = []
            for i, clips in enumerate(line.clips):
                records = score_clips(
                    pool,
                    line.name,
                    clips,
                    line.held_out.originals,
                    line.held_out.texts,
                    line.held_out.codec.spec.sample_rate,
                    out=out,
                    bar=bar,
                )
                if line.more:
                    pairs = zip(records, line.more[i], strict=True)
                    records = [record | dict(fields) for record, fields in pairs]
                by_seed.append(records)
            rows.append(RowData(line.name, line.kind, line.codec, by_seed, line.extra))
    return rows
