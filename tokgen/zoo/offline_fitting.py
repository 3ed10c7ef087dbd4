"""Fit a quantizer to the latents of a continuous codec, once, and save the codec of both."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tokgen.codec.continuous import ContinuousCodec
from tokgen.nn.cards import ModelCardFacts
from tokgen.nn.files import read_json
from tokgen.quantizers.offline.base import OfflineQuantizer
from tokgen.quantizers.offline.qinco2 import Qinco2
from tokgen.quantizers.offline.qinco2_training import train_qinco2
from tokgen.quantizers.offline.settings import QincoTraining
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.folder import write_json
from tokgen.zoo.offline import OfflineCodec

__all__ = ["FITTED", "POLL_SECONDS", "fit_codec", "levels_for"]

FITTED = "fit.json"  # is written last
POLL_SECONDS = 1.0  # while another process fits


def levels_for(bitrate: float, frame_rate: float, codebook_size: int) -> int:
    """Return the number of levels that have a bitrate in kbps.

    Raises:
        ValueError: it is not a whole number of levels.
    """
    per_level = frame_rate * math.log2(codebook_size) / 1000
    levels = round(bitrate / per_level)
    if levels < 1 or abs(levels * per_level - bitrate) > 0.005 * bitrate:
        least = max(1, math.floor(bitrate / per_level))
        near = " or ".join(f"{k * per_level:g}" for k in (least, least + 1))
        raise ValueError(
            f"bitrate = {bitrate:g}: a level of {codebook_size} entries is {per_level:g} kbps "
            f"at {frame_rate:g} frames per second; use {near}, or another codebook_size"
        )
    return levels


def fit_codec(
    continuous: ContinuousCodec,
    quantizer: OfflineQuantizer,
    frames: Tensor,
    folder: Path,
    *,
    name: str,
    beam: int = 1,
    training: QincoTraining | None = None,
    validation: Tensor | None = None,
    seed: int = 0,
    accelerator: Any = None,
    card: ModelCardFacts | None = None,
) -> dict[str, float] | None:
    """Fit a quantizer and save the codec in `folder`/codec, unless an earlier call has done so.

    QINCo2 continues from its checkpoints in `folder`/checkpoints. Other quantizers are fitted in
    the first process of a launch; the others wait for `fit.json`.

    Args:
        continuous: codec of the latents.
        quantizer: not fitted yet.
        frames: latents [n, D] to fit to.
        folder: see above; `fit.json` in it says that the codec is complete.
        name: of the codec.
        beam: of the codec's search; it counts only for quantizers that have one.
        training: how QINCo2 trains; its seed is replaced. None means its defaults.
        validation: held-out frames [n, D], which QINCo2 records.
        seed: of everything that is random.
        accelerator: from Accelerate; None makes one where it is needed.
        card: facts for the card.
    Returns:
        `seconds`, the CPU seconds of the fit in this process, and `n_frames`; None if it was
        interrupted. If QINCo2 continued, the seconds are those of all steps at the speed of the
        steps of this process, and NaN if there were none.
    Raises:
        ValueError, TypeError: as for `OfflineQuantizer.fit` and `OfflineCodec.join`.
    """
    fits = accelerator is None or accelerator.is_main_process
    trains = isinstance(quantizer, Qinco2)  # in all processes; others are fitted by the first one
    while not fits and not trains and not (folder / FITTED).is_file():
        time.sleep(POLL_SECONDS)
    if (folder / FITTED).is_file():
        found = read_json(folder / FITTED)
        return {key: math.nan if value is None else value for key, value in found.items()}
    began, share = time.process_time(), 1.0
    if isinstance(quantizer, Qinco2):
        settings = replace(training or QincoTraining(), seed=seed)
        share -= max(Checkpoints(folder / "checkpoints").steps(), default=0) / settings.steps
        how: Any = {"validation": validation, "folder": folder, "accelerator": accelerator}
        if train_qinco2(quantizer, frames, settings, **how) is None:
            return None
    else:
        quantizer.fit(frames, seed=seed)
    seconds = (time.process_time() - began) / share if share > 0 else math.nan
    found = {"seconds": seconds, "n_frames": len(frames)}
    if fits:
        codec = OfflineCodec.join(
            continuous, quantizer, name, beam=beam if quantizer.searches else 1
        )
        codec.save_pretrained(folder / "codec", card)
        write_json(folder / FITTED, found)
    return found
