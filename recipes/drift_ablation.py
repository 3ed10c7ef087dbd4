"""Which loss stops drift? Tune a codec with and without each one, and compare.

    accelerate launch -q recipes/drift_ablation.py --codec speech-16k --seeds 3

The trainings are loss {none, enc, proj, code, margin} x mel and spectral loss on later passes {off,
on} x seeds, and the conditions of `extra`. A loss without a weight first gets the largest weight
whose validation loss holds, as in the paper, but tuned at full length. All tuned codecs go through
the same drift protocol, with and without shifts between passes. Run the same command again to
continue an interrupted run, or at the same time to use more cores: each process takes trainings
that no other works on. `tokgen report runs/<name>` makes a page from the results. The steps are in
`tokgen.codec_training.ablation`.
"""

from __future__ import annotations

from pathlib import Path

from tokgen.codec_training.ablation_settings import AblationSettings, check_ablation
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.settings import begin_recipe, command_of, parse_settings

if __name__ == "__main__":
    begin_recipe(AblationSettings, __file__, check_ablation)

from tokgen.codec_training.ablation import run_ablation


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(AblationSettings, Path(__file__).with_suffix(".yaml"), argv)
    with plain_errors():
        table = run_ablation(s, command=command_of(__file__, argv))
    if table is None:
        return 130
    run = Path(s.runs) / s.name
    print(f"\n{table}")
    print(f"outputs: {run} (table.json, .csv, .md, .tex; ablation.png)\nnext: tokgen report {run}")
    return 0


if __name__ == "__main__":
    run_recipe(main)
