"""Compare codecs by generators trained on their tokens (Code Drift's Table II).

    accelerate launch -q recipes/compare_codecs.py --codec speech-16k --codec speech-16k-code
    accelerate launch -q recipes/compare_codecs.py --seeds 3 --name three_seeds
    accelerate launch -q recipes/compare_codecs.py --tokens a --tokens b --corpus my_audio

For each codec the recipe tokenizes the corpus, trains the same model with the same seeds and data
order, generates the same held-out utterances from the same conditioning and noise, and scores them.
The other codecs are compared with the first one, paired over clips and seeds. Run the same command
again to continue an interrupted run. `tokgen report runs/<name>` makes a page from the results.
The steps are in `tokgen.comparison.plan`; in Python, call `tokgen.compare_codecs`.
"""

from __future__ import annotations

from pathlib import Path

from tokgen.comparison.settings import ComparisonSettings, check_sources
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.settings import begin_recipe, parse_settings

if __name__ == "__main__":
    begin_recipe(ComparisonSettings, __file__, check_sources)

from tokgen.comparison.plan import run_comparison


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(ComparisonSettings, Path(__file__).with_suffix(".yaml"), argv)
    with plain_errors():
        table = run_comparison(s, s.codec, cache=Path(s.runs) / "tokens")
    if table is not None:  # the first process
        run = Path(s.runs) / s.name
        print(f"\n{table}")
        print(f"outputs: {run} (table.json, .csv, .md, .tex; samples)\nnext: tokgen report {run}")
    return 0


if __name__ == "__main__":
    run_recipe(main)
