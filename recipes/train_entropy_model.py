"""Train an entropy model of a codec's codes, quantize it to integers, and measure its bits.

    accelerate launch -q recipes/train_entropy_model.py                      # minutes, on a CPU
    accelerate launch -q recipes/train_entropy_model.py --name mine \
        --corpus en.parquet,es.parquet --codec speech-16k

The model predicts each code from the codes before it; a range coder turns the predictions into
files. `--tokens FOLDER` trains on a token dataset that `tokgen tokenize` made. All outputs are in
runs/<name>/: model/ (float), integer/ (for files) and metrics.json. Run the same command again to
continue an interrupted run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tokgen.corpus.settings import check_corpus
from tokgen.runs.checks import check_least
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import (
    begin_recipe,
    command_of,
    parse_settings,
    save_settings,
)
from tokgen.training.settings import MAY_CHANGE as LOOP_MAY_CHANGE
from tokgen.training.settings import CausalTrainingSettings
from tokgen.zoo.names import check_name


@dataclass(frozen=True, kw_only=True)
class Settings(CausalTrainingSettings):
    """Train an entropy model of a codec's codes, quantize it, and measure its bits.

    Attributes:
        name: the run's folder is runs/<name>.
        tokens: token dataset, a folder or hub id; None tokenizes `corpus` with `codec`. Without a
            test split, 5 % of its rows become one.
        corpus: a folder, Parquet file, saved dataset or hub id. Without a test split, 5 % of its
            clips become one.
        grids: grids of frames that the training clips of `corpus` are tokenized on. More of them
            give more codes of the same speech.
        codec: a name in the zoo, a folder or a hub id; None means the codec that `tokens` name, or
            speech-16k.
        block_seconds: the model starts anew after blocks of this length when it is measured, as in
            files; 0 lets it see whole clips.
        calibration_clips: training clips that set the ranges of the integers.
        runs: parent folder of the runs.
    """

    name: str = "entropy_model"
    tokens: str | None = None
    corpus: str = "recipes/data/allison"
    grids: int = 1
    codec: str | None = None
    block_seconds: float = 0.0
    calibration_clips: int = 100
    runs: str = "runs"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, grids=1, block_seconds=0, calibration_clips=1)


def check_sources(s: Settings) -> None:
    """Raise FileNotFoundError if the codec or the corpus does not exist."""
    if s.codec is not None:
        check_name(s.codec)
    if s.tokens is None:
        check_corpus(s.corpus)


# These may change when a run continues: they do not affect the trained weights.
MAY_CHANGE = (*LOOP_MAY_CHANGE, "block_seconds", "calibration_clips", "runs")

if __name__ == "__main__":
    begin_recipe(Settings, __file__, check_sources)

from accelerate.utils import set_seed

from tokgen.corpus.listed import open_corpus
from tokgen.generation.corpora import training_and_test_tokens
from tokgen.generation.training_tokens import open_training_tokens
from tokgen.modelling.causal import CausalModel
from tokgen.modelling.causal_depth import CausalDepthNetwork
from tokgen.modelling.integer_depth import IntegerDepthNetwork
from tokgen.nn.files import WEIGHTS
from tokgen.runs.accelerator import make_accelerator, start_trackers
from tokgen.runs.folder import write_json
from tokgen.tokens.columns import codes_of
from tokgen.training.causal import CausalTraining, make_causal_model
from tokgen.training.code_bits import measure_code_bits
from tokgen.training.grids import add_grids
from tokgen.training.train import claim_training
from tokgen.zoo.lookup import load_codec


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    with lock_folder(run):
        return train_and_measure(s, run, command_of(__file__, argv))


def train_and_measure(s: Settings, run: Path, command: str) -> int:
    """Train, quantize and measure in the folder `run`. Returns the exit code."""
    with plain_errors():
        accelerator = make_accelerator(
            run,
            s.mixed_precision,
            s.tracker,
            s.gradient_accumulation,
            find_unused_parameters=s.level_dropout > 0,
        )
    set_seed(s.seed)

    # 1. Tokens. Those of a corpus are reused if it and the codec have not changed.
    with accelerator.main_process_first(), plain_errors():
        if s.tokens is None:
            codec = load_codec(s.codec or "speech-16k", device="cpu")
            cache = Path(s.runs) / "tokens"
            corpus = open_corpus(s.corpus)
            tokens, _ = training_and_test_tokens(s.corpus, None, codec, cache, None)
            plain, tokens = tokens, add_grids(tokens, corpus, codec, s.grids, cache)
        else:
            if s.grids > 1:
                raise ValueError(f"grids = {s.grids} needs the audio: set corpus, not tokens")
            tokens, codec = open_training_tokens(s.tokens, s.codec, None, device="cpu")
            plain = tokens
        about = claim_training(accelerator, run, s, codec, tokens, MAY_CHANGE)

    # 2. The model and its training, which continues from a checkpoint if there is one.
    with plain_errors():
        model = make_causal_model(codec, tokens, s)
        training = CausalTraining(accelerator, model, tokens, s, run)
    train = tokens.splits["train"]
    accelerator.print(
        f"{codec.spec.name}: {len(train)} training clips, {training.card.hours:.2f} h; "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters ({s.kind})"
    )
    if accelerator.is_main_process:
        save_settings(run, s, **about)
        start_trackers(accelerator, s)

    # 3. Train: predict each code from the codes before it.
    for batch in training.batches():
        loss = training.loss(batch)
        training.descend(loss)
    if training.interrupted:
        accelerator.end_training()
        return 130
    card = replace(training.card, command=command)
    training.save_model(run / "model", card)

    # 4. Quantize the network to integers, and measure the bits of the test clips.
    if accelerator.is_main_process:
        trained = type(model).from_pretrained(run / "model")
        models: dict[str, CausalModel] = {"model": trained}
        if isinstance(trained, CausalDepthNetwork):
            few = train.select(range(min(s.calibration_clips, len(train))))
            integer = IntegerDepthNetwork.from_float(trained, codes_of(few))
            integer.save_pretrained(run / "integer", card=card)
            models["model in integers"] = IntegerDepthNetwork.from_pretrained(run / "integer")
            size = (run / "integer" / WEIGHTS).stat().st_size / 1e6
            accelerator.print(f"integer weights: {size:.2f} MB, hash {integer.hash()}")
        with plain_errors():
            block = s.block_seconds or None
            found = measure_code_bits(tokens, models, held_out=plain, block_seconds=block)
        write_json(run / "metrics.json", {**found.to_dict(), "steps": training.step})
        accelerator.print(f"\n{found}\noutputs: {run}")
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    run_recipe(main)
