"""Train a masked transformer to generate speech from MFCCs, and score it.

    accelerate launch -q recipes/vocode_mfcc.py                                 # minutes, on a CPU
    accelerate launch -q recipes/vocode_mfcc.py --config recipes/vocode_mfcc.paper.yaml
    accelerate launch -q recipes/vocode_mfcc.py --config recipes/vocode_mfcc.delay.yaml
    accelerate launch -q recipes/vocode_mfcc.py --name mine --tokens tokens

This is the downstream experiment of Code Drift (O'Reilly et al., section V): a SoundStorm-like
masked transformer predicts a codec's tokens from a 30-bin MFCC at the codec's frame rate. With
`--model.kind delay` the transformer is autoregressive, with MusicGen's delay pattern. All outputs
are in runs/<name>/. Run the same command again to continue an interrupted run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokgen.evaluation import generator_settings
from tokgen.evaluation.generator_settings import GeneratorSettings, check_sources
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import (
    begin_recipe,
    command_of,
    parse_settings,
    save_settings,
)


@dataclass(frozen=True, kw_only=True)
class Settings(GeneratorSettings):
    """Train a masked transformer to generate speech from MFCCs, and score it.

    Attributes:
        name: the run's folder is runs/<name>.
        stable: decode so that encoding the audio gives the generated codes again.
    """

    name: str = "vocode_mfcc"
    stable: bool = False


N_LOGGED = 3  # utterances that the tracker gets
MAY_CHANGE = (*generator_settings.MAY_CHANGE, "stable")

if __name__ == "__main__":
    begin_recipe(Settings, __file__, check_sources)

from accelerate.utils import gather_object, set_seed

from tokgen.codec.stable.decoding import check_searchable
from tokgen.evaluation.generated import audio_rows, open_data, save_scores, score_generated
from tokgen.generation.settings import TaskSettings
from tokgen.modelling.loading import load_transformer
from tokgen.plotting import plot_curves
from tokgen.runs.accelerator import log_audio, make_accelerator, start_trackers
from tokgen.training.kinds import make_training, make_transformer
from tokgen.training.train import claim_training


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    with lock_folder(run):
        return train_and_score(s, run, command_of(__file__, argv))


def train_and_score(s: Settings, run: Path, command: str) -> int:
    """Train and score in the folder `run`. Returns the exit code."""
    with plain_errors():
        accelerator = make_accelerator(run, s.mixed_precision, s.tracker, s.gradient_accumulation)
    say = accelerator.print
    set_seed(s.seed)
    started = time.monotonic()

    # 1. Tokens. They are reused if the corpus and the codec have not changed.
    with accelerator.main_process_first(), plain_errors():
        data = open_data(s, accelerator.device)
        codec, tokens, held_out = data.codec, data.tokens, data.held_out
        if s.stable:
            check_searchable(codec)
        about = claim_training(accelerator, run, s, codec, tokens, MAY_CHANGE)
    train = tokens.splits["train"]
    hours = sum(train["n_samples"]) / codec.spec.sample_rate / 3600
    say(f"{codec}; {len(train)} training utterances, {hours:.2f} h")

    # 2. The model and its training, which continues from a checkpoint if there is one.
    model = make_transformer(codec, tokens, s)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    say(
        f"{size:.1f}M parameters ({s.model.preset}, {s.model.kind}), "
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, precision "
        f"{accelerator.mixed_precision}"
    )
    with plain_errors():
        training = make_training(accelerator, model, tokens, s, run)
    if accelerator.is_main_process:
        save_settings(run, s, **about)
        start_trackers(accelerator, s)

    # 3. Train. A masked model hides part of one level and predicts it from the levels below and the
    # MFCC; an autoregressive one predicts the codes of each step from those before.
    for batch in training.batches():
        loss = training.loss(batch)
        training.descend(loss)
    if training.interrupted:
        accelerator.end_training()
        return 130
    trained = time.monotonic()
    card = replace(training.card, command=command)
    training.save_model(run / "model", card)
    if accelerator.is_main_process:
        plot_curves(training.history, run / "curves.png")

    # 4. Generate the held-out utterances from their MFCCs, and without MFCCs as a lower bound. Load
    # the model as users do: Accelerate left the trained one in mixed precision.
    model = load_transformer(run / "model").to(accelerator.device).eval()
    options: dict[str, Any] = {
        "seed": s.seed, "batch_size": s.generation_batch, "progress": accelerator.is_main_process
    }  # fmt: skip
    with accelerator.split_between_processes(list(range(len(held_out)))) as mine:
        part = held_out.part(mine)
        generated = part.generate(model, TaskSettings(), s.sampling, stable=s.stable, **options)
        floor = part.generate(model, TaskSettings(), s.sampling, unconditional=True, **options)
    generated, floor = gather_object(generated), gather_object(floor)
    made = time.monotonic()

    # 5. Score against the original audio, and save some utterances.
    if accelerator.is_main_process:
        audio = audio_rows(
            data,
            generated=[g.waveform for g in generated],
            unconditional=[g.waveform for g in floor],
        )
        scores = score_generated(run, audio, data, s)
        seconds = {
            "train": trained - started,
            "generate": made - trained,
            "score": time.monotonic() - made,
        }
        save_scores(run, scores, steps=training.step, seconds=seconds, codec=codec.spec.name)
        on = f"{len(held_out)} test clips of {data.test_tokens.provenance.corpus}"
        rows = scores.means.rows_as_dict()
        model.write_card(run / "model", replace(card, scores=rows, scored_on=on))
        rate = codec.spec.sample_rate
        for row, clips in audio.items():
            for utterance, clip in list(zip(held_out.ids, clips, strict=True))[:N_LOGGED]:
                log_audio(accelerator, f"{row}/{utterance}", clip, rate, training.step)
        say(f"\n{scores}")
        say(f"outputs: {run} (samples, curves.png, spectrograms.png, metrics.json)")
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    run_recipe(main)
