"""Train a masked transformer to speak text, and score it.

    accelerate launch -q recipes/tts_masked.py                       # the included voice
    accelerate launch -q recipes/tts_masked.py --text.unit phonemes  # English words as phonemes
    accelerate launch -q recipes/tts_masked.py --name mine --tokens tokens

First a text model learns to align the symbols of transcripts with frames, and to predict durations
and MFCCs. Then a masked transformer learns to generate a codec's tokens from the symbol and the
predicted MFCC of each frame. The test clips are generated from their text alone. All outputs are in
runs/<name>/. Run the same command again to continue an interrupted run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokgen.evaluation import generator_settings
from tokgen.evaluation.generator_settings import GeneratorSettings, check_sources
from tokgen.modelling.text.settings import check_speed
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import (
    begin_recipe,
    command_of,
    parse_settings,
    save_settings,
)
from tokgen.training.settings import TextTrainingSettings


@dataclass(frozen=True, kw_only=True)
class Settings(GeneratorSettings):
    """Train a masked transformer to speak text, and score it.

    The tokens or the corpus need transcripts.

    Attributes:
        name: the run's folder is runs/<name>.
        text: training of the text model. Its seed is that of the run.
        speed: of the generated speech; above 1 is faster than the training speech.
    """

    name: str = "tts_masked"
    text: TextTrainingSettings = field(default_factory=TextTrainingSettings)
    speed: float = 1.0
    metrics: list[str] = field(default_factory=lambda: ["cer", "mos", "speaker"])

    def __post_init__(self) -> None:
        super().__post_init__()
        check_speed(self.speed)


MAY_CHANGE = (*generator_settings.MAY_CHANGE, "speed")

if __name__ == "__main__":
    begin_recipe(Settings, __file__, check_sources)

from accelerate.utils import gather_object, set_seed

from tokgen.evaluation.generated import audio_rows, open_data, save_scores, score_generated
from tokgen.generation.generators import TEXT
from tokgen.generation.speech import Speaker
from tokgen.modelling.text.model import TextModel
from tokgen.plotting import plot_curves
from tokgen.runs.accelerator import make_accelerator, start_trackers
from tokgen.training.masked import MaskedTraining
from tokgen.training.text import TextTraining
from tokgen.training.text_frames import speaking_transformer, with_text_frames
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

    # 1. Tokens with MFCCs and transcripts. They are reused if corpus and codec have not changed.
    with accelerator.main_process_first(), plain_errors():
        data = open_data(s, accelerator.device, with_text=True)
        codec, tokens, held_out = data.codec, data.tokens, data.held_out
        about = claim_training(accelerator, run, s, codec, tokens, MAY_CHANGE)
        text_model = TextModel.for_tokens(codec, tokens, s.text.size, s.text.unit)
    if accelerator.is_main_process:
        save_settings(run, s, **about)
        start_trackers(accelerator, s)

    # 2. The text model: align symbols with frames, predict durations and MFCCs.
    with plain_errors():
        text_settings = replace(s.text, seed=s.seed)
        learning = TextTraining(accelerator, text_model, tokens, text_settings, run / TEXT)
    say(f"text model: {len(learning.speech)} clips, {len(text_model.symbols)} {s.text.unit}")
    for batch in learning.batches():
        learning.descend(learning.loss(batch))
    if learning.interrupted:
        accelerator.end_training()
        return 130
    card = replace(learning.card, command=command)
    learning.save_model(run / "model" / TEXT, card)
    text_model = TextModel.from_pretrained(run / "model" / TEXT).to(accelerator.device).eval()

    # 3. The masked transformer: hide part of one level, predict it from the levels below and the
    # frames of the text. The durations are those of the speech.
    with plain_errors():
        spoken = with_text_frames(tokens, text_model, progress=accelerator.is_main_process)
        set_seed(s.seed)
        n_codebooks = tokens.provenance.n_codebooks
        model = speaking_transformer(codec, text_model, s.model, n_codebooks=n_codebooks)
        training = MaskedTraining(accelerator, model, spoken, s, run)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    say(f"{size:.1f}M parameters ({s.model.preset}), precision {accelerator.mixed_precision}")
    for batch in training.batches():
        training.descend(training.loss(batch))
    if training.interrupted:
        accelerator.end_training()
        return 130
    card = replace(training.card, command=command)
    training.save_model(run / "model", card)
    if accelerator.is_main_process:
        plot_curves(training.history, run / "curves.png")

    # 4. Generate the test utterances from their texts alone, by the saved models.
    speaker = Speaker.from_pretrained(run / "model", device=accelerator.device)
    began = time.monotonic()
    with accelerator.split_between_processes(list(range(len(held_out)))) as mine:
        part = held_out.part(mine)
        generated = speaker.speak(
            codec,
            [text or "" for text in part.texts],
            s.sampling,
            speed=s.speed,
            seed=s.seed,
            item_ids=part.items,
            batch_size=s.generation_batch,
            progress=accelerator.is_main_process,
        )
    generated = gather_object(generated)

    # 5. Score, and save some utterances. Generated clips have lengths of their own.
    if accelerator.is_main_process:
        audio = audio_rows(data, generated=[g.waveform for g in generated])
        scores = score_generated(run, audio, data, s)
        seconds = {"generate_and_score": time.monotonic() - began, "train": training.seconds}
        save_scores(run, scores, steps=training.step, seconds=seconds, codec=codec.spec.name)
        corpus = data.test_tokens.provenance.corpus
        on = f"{len(held_out)} test clips of {corpus}, from text alone"
        rows = scores.means.rows_as_dict()
        speaker.model.write_card(run / "model", replace(card, scores=rows, scored_on=on))
        say(f"\n{scores}")
        say(f"outputs: {run} (samples, curves.png, spectrograms.png, metrics.json)")
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    run_recipe(main)
