"""Notes below the table of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from tokgen.comparison.settings import ComparisonSettings
from tokgen.generation.held_out import HeldOut

__all__ = ["notes_of"]


def notes_of(
    s: ComparisonSettings, held_out: Sequence[HeldOut], processes: int, precision: str
) -> list[str]:
    """Return the notes below the table, for the held-out utterances of each codec."""
    first = held_out[0]
    batch = s.batch_size * s.gradient_accumulation * processes
    lines = [
        f"{len(first)} held-out utterances of {s.test_corpus or s.corpus}, "
        f"{first.seconds:.0f} s; task {s.task.name}, conditioning {s.conditioning}; "
        f"{s.model.preset} model, {s.steps} steps of {batch} x {s.crop_seconds:g} s, "
        f"trained in {precision}, sampled in float32",
        "means with 95 % intervals; differences are paired over clips and seeds",
    ]
    one = "one training per codec: the intervals cover clips, but not training seeds"
    several = f"{s.seeds} trainings per codec; the intervals cover clips and seeds"
    lines.append(one if s.seeds == 1 else several)
    if s.task.name != "vocode":
        lines.append(
            "scores cover whole utterances, including the kept parts; utterances shorter than "
            f"{s.task.shortest_seconds:g} s are left out"
        )
    if s.drift_passes:
        lines.append(f"PESQ @ {s.drift_passes}: PESQ after that many encodings of the first 5 s")
    if any(utterances.depths for utterances in held_out):
        lines.append(
            "a variable bitrate is the mean over utterances, with the bits of the depth; that of "
            "generated speech is of the generated depth"
        )
    lines.append("token accuracy has no verdict: it depends on how predictable the codes are")
    lines.append("speeds were measured on this machine together with its other work")
    return lines
