"""Lines of a comparison: the audio of one row before it is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from tokgen.codec.depth import stream_bits
from tokgen.comparison.cells import TrainedCell
from tokgen.comparison.compare import RowData
from tokgen.evaluation.clips import score_clips
from tokgen.evaluation.pool import ScoringPool
from tokgen.evaluation.samples import Column
from tokgen.evaluation.scorer import Scorer
from tokgen.generation.held_out import HeldOut
from tokgen.metrics.statistics import Estimate, bootstrap_mean, bootstrap_ratio
from tokgen.runs.progress import progress_bar
from tokgen.tokens.dataset import TokenDataset

__all__ = ["Entry", "Line", "lines_of", "score_lines"]


@dataclass(frozen=True)
class Entry:
    """Training tokens and held-out utterances of a codec."""

    name: str
    tokens: TokenDataset
    held_out: HeldOut


@dataclass(frozen=True)
class Line:
    """Audio of one row of the table.

    Attributes:
        name: name of the row.
        kind: "original", "resynthesis" or "generated".
        held_out: the utterances, with the originals to compare with.
        clips: for each training seed, waveforms [1, N] of the utterances.
        clip_fields: for each training seed, fields to add to the records of the clips
            (`accuracy_records`, "drift_pesq"); None for none.
        extra: estimates for the line as a whole, besides the bitrate.
        unconditional: the clips were generated without conditioning.
        depths: for each training seed, levels of each frame [T] of the clips, if they are not those
            of the utterances; None for codecs without a variable bitrate.
    """

    name: str
    kind: str
    held_out: HeldOut
    clips: Sequence[Sequence[Tensor]]
    clip_fields: Sequence[Sequence[Mapping[str, float]]] | None = None
    extra: Mapping[str, Estimate] = field(default_factory=dict)
    unconditional: bool = False
    depths: Sequence[Sequence[Tensor]] | None = None

    @property
    def codec(self) -> str | None:
        """Name of the codec; None for originals."""
        return None if self.kind == "original" else self.held_out.codec.spec.name

    def bitrate(self) -> Estimate:
        """Estimate the kbps of the codes and, with a variable bitrate, of the depth."""
        spec, found = self.held_out.codec.spec, self.held_out.depths
        if found is None:
            return bootstrap_mean([spec.bitrate / 1000])
        depths = [depth for clips in self.depths or [found] for depth in clips]
        bits = [stream_bits(len(d), spec.n_codebooks, spec, d) for d in depths]
        return bootstrap_ratio(bits, [1000 * len(d) / spec.frame_rate for d in depths])

    def column(self) -> Column:
        """Return the clips of the first seed as a column of samples."""
        spec = self.held_out.codec.spec
        depths = self.depths[0] if self.depths else self.held_out.depths
        if self.kind == "original":
            depths = None
        clips = self.clips[0]
        return Column(self.name, self.kind, self.codec, spec.sample_rate, clips, depths, spec)


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
        lines: lines with the same utterances.
        out: folder that keeps the records of finished clips. After a kill, the same call resumes.
        workers: processes that score, as in `ScoringPool`.
    """
    rows = []
    total = sum(len(clips) for line in lines for clips in line.clips)
    with (
        ScoringPool(scorer, workers) as pool,
        progress_bar("scoring", total=total, unit="clip", show=progress) as bar,
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
                    ids=line.held_out.ids,
                    out=out,
                    bar=bar,
                )
                if line.clip_fields:
                    pairs = zip(records, line.clip_fields[i], strict=True)
                    records = [record | dict(fields) for record, fields in pairs]
                by_seed.append(records)
            extra = dict(line.extra)
            if line.codec:
                extra = {"bitrate": line.bitrate(), **extra}
            rows.append(
                RowData(line.name, line.kind, line.codec, by_seed, extra, line.unconditional)
            )
    return rows


def lines_of(
    entries: Sequence[Entry],
    made: dict[tuple[str, str], list[TrainedCell]],
    drift: dict[str, dict[str, float]],
) -> list[Line]:
    """Return the lines of the table: originals, and what each codec resynthesized and generated.

    If the first cell has a floor, it is a line too.
    """
    first = entries[0].held_out
    lines = [Line("original", "original", first, [first.originals])]
    for entry in entries:
        known = drift.get(entry.name, {})
        fields = [[{"drift_pesq": known.get(i, math.nan)} for i in first.ids]] if known else None
        clips, name = [entry.held_out.resynthesis()], f"{entry.name} resynthesis"
        lines.append(Line(name, "resynthesis", entry.held_out, clips, fields))
    cell = next(iter(made.values()))[0]
    if cell.floor:
        name = f"{entries[0].name} unconditional"
        below = None if cell.floor_depths is None else [cell.floor_depths]
        line = Line(name, "generated", first, [cell.floor], unconditional=True, depths=below)
        lines.append(line)
    by_name, first_kind = {entry.name: entry for entry in entries}, next(iter(made))[1]
    for (codec, kind), found in made.items():
        entry = by_name[codec]
        name = f"{codec} generated" + ("" if kind == first_kind else f" ({kind})")
        extra = {
            "training_speed": bootstrap_mean([m.steps_per_second for m in found]),
            "sampling_speed": bootstrap_mean([m.times_real_time for m in found]),
        }
        clips = [m.clips for m in found]
        accuracy = [m.accuracy for m in found] if all(m.accuracy for m in found) else None
        depths = [m.depths for m in found if m.depths is not None] or None
        line = Line(name, "generated", entry.held_out, clips, accuracy, extra, depths=depths)
        lines.append(line)
    return lines
