"""Tune a codec with an idempotence loss: Code Drift's fine-tuning (O'Reilly et al., section IV).

    accelerate launch -q recipes/tune_idempotence.py --codec speech-16k --loss code \
        --corpora '[en.parquet, es.parquet, fr.parquet, it.parquet]'

The quantizer is frozen and its dropout of levels is off. One idempotence loss, times a weight, is
added to the codec's own training losses. Without `--weight`, each weight of `sweep` is tried for
`sweep_steps` steps, and the largest whose validation loss holds is used. Run the same command
again to continue an interrupted run. The training loop is `tokgen.codec_training.tuning.tune`.
"""

from __future__ import annotations

from pathlib import Path

from tokgen.codec_training.settings import TuningSettings, check_sources
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.settings import begin_recipe, command_of, parse_settings

if __name__ == "__main__":
    begin_recipe(TuningSettings, __file__, check_sources)

from tokgen.codec_training.tuning import tune_codec


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(TuningSettings, Path(__file__).with_suffix(".yaml"), argv)
    with plain_errors():
        scores = tune_codec(s, command=command_of(__file__, argv))
    return 130 if scores is None else 0


if __name__ == "__main__":
    run_recipe(main)
