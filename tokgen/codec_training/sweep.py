"""Choice of an idempotence loss's weight."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokgen.codec_training.validation import Tuned
from tokgen.runs.folder import write_json

__all__ = ["choose_weight", "holding_weights"]


def choose_weight(
    weights: Sequence[float],
    tolerance: float,
    untuned: Callable[[], Tuned],
    tune: Callable[[float], Tuned | None],
    path: Path,
    accelerator: Any,
) -> float | None:
    """Tune with each weight and choose the largest that holds the validation loss.

    Args:
        weights: weights to try.
        tolerance: a weight holds if its validation loss exceeds the untuned codec's by at most
            this share.
        untuned: validates the untuned codec.
        tune: tunes with a weight and returns the last validation; None if interrupted.
        path: JSON file of the trials. Those in it are not repeated.
        accelerator: of the run. Every process must call this.
    Returns:
        the weight; None if interrupted.
    Raises:
        SystemExit: no weight holds.
    """
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if "untuned" not in found:
        found["untuned"] = asdict(untuned())
    for weight in weights:
        if f"{weight:g}" not in found:
            scores = tune(weight)
            if scores is None:
                return None
            found[f"{weight:g}"] = asdict(scores)
        if accelerator.is_main_process:
            write_json(path, found)
        accelerator.print(f"weight {weight:g}: {found[f'{weight:g}']}")
    untuned_scores = Tuned(**found["untuned"])
    loss = untuned_scores.loss
    by_weight = {w: Tuned(**found[f"{w:g}"]) for w in weights}
    holding = holding_weights(by_weight, untuned_scores, tolerance)
    if not holding:
        raise SystemExit(
            f"error: no weight of {list(weights)} holds the validation loss of {loss:.4g} within "
            f"{tolerance:.0%}: give smaller weights (--sweep), a larger --sweep_tolerance, or a "
            f"--weight; the trials are in {path}"
        )
    accelerator.print(f"using weight {max(holding):g}")
    return max(holding)


def holding_weights(trials: Mapping[float, Tuned], untuned: Tuned, tolerance: float) -> list[float]:
    """Return the weights whose validation loss exceeds the untuned codec's by at most a share."""
    return [w for w, tuned in trials.items() if tuned.loss <= (1 + tolerance) * untuned.loss]
