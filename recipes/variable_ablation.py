"""Which surrogate trains a variable bitrate best? Train a codec with each one, and compare.

    accelerate launch -q recipes/variable_ablation.py \
        --training.corpora '[en.parquet, es.parquet]' --training.validation en.parquet

The trainings are the paper's surrogate with each sharpness of `alphas`, and the other `surrogates`,
under `seeds` seeds. Each codec is scored on the validation clips at the `bitrates`, with a variable
rate and with a constant one. Run the same command again to continue an interrupted run, or at the
same time to use more cores: each process takes trainings that no other works on. The steps are in
`tokgen.codec_training.variable_ablation.run`.
"""

from __future__ import annotations

from pathlib import Path

from tokgen.codec_training.variable_ablation.settings import (
    VariableAblationSettings,
    check_variable_ablation,
)
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.settings import begin_recipe, command_of, parse_settings

if __name__ == "__main__":
    begin_recipe(VariableAblationSettings, __file__, check_variable_ablation)

from tokgen.codec_training.variable_ablation.run import run_variable_ablation


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(VariableAblationSettings, Path(__file__).with_suffix(".yaml"), argv)
    with plain_errors():
        table = run_variable_ablation(s, command=command_of(__file__, argv))
    if table is None:
        return 130
    run = Path(s.runs) / s.name
    print(f"\n{table}")
    print(f"outputs: {run} (table.json, .csv, .md, .tex)\nnext: tokgen report {run}")
    return 0


if __name__ == "__main__":
    run_recipe(main)
