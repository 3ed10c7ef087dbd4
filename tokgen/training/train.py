"""Train a token model with one call.

model = train("tokens", "speech-16k", "runs/mine", steps=1000, batch_size=8)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from tokgen.codec.base import Codec
from tokgen.codec.identity import unclaimed
from tokgen.modelling.loading import load_transformer
from tokgen.modelling.settings import ModelSettings
from tokgen.modelling.transformer import TokenTransformer
from tokgen.plotting import plot_curves
from tokgen.runs.accelerator import conditions_of, make_accelerator, start_trackers
from tokgen.runs.folder import check_run_folder
from tokgen.runs.interrupts import Interrupted
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import claim_run, save_settings
from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.training.kinds import make_training, make_transformer
from tokgen.training.loop import check_train_split
from tokgen.training.settings import MAY_CHANGE, ModelTrainingSettings, settings_of_call
from tokgen.zoo.recorded import codec_of

__all__ = ["claim_training", "train", "train_model"]


def train(
    tokens: TokenDataset | str | Path,
    codec: Codec | str | Path | None,
    out: str | Path,
    *,
    preset: str | ModelSettings = "small",
    **settings: Any,
) -> TokenTransformer:
    """Train a transformer on a token dataset: a masked one, unless `preset` has another kind.

    The same call continues a training that was interrupted, and does not train again if it was
    complete. It runs on a GPU if there is one. In a script that `accelerate launch` starts, all
    processes call it and share the work. The global random seeds are set to `seed`.

    Args:
        tokens: a token dataset, or its folder or hub id as in `load_tokens`. Trains on its train
            split, and validates on its validation split if there is one.
        codec: the codec that made the tokens, or its name as in `load_codec`; None loads the one
            that the tokens name.
        out: folder of the run: model/, checkpoints/, history.jsonl, settings.json, training.json
            and curves.png.
        preset: size of the model, "small" or "paper", or its `ModelSettings`.
        settings: fields of `ModelTrainingSettings`: those of `TrainingSettings`, such as `steps`,
            `batch_size` and `learning_rate`, and `mixed_precision` and `tracker`.
    Returns:
        the trained model in eval mode, as `load_transformer(out + "/model")` loads it, on
        the device that it was trained on.
    Raises:
        TypeError: unknown setting.
        ValueError: a setting is out of range; the tokens are of another codec or have no train
            split; or `out` holds something else, such as a run with other settings.
        FileNotFoundError: no such dataset or codec.
        BlockingIOError: another process works in `out`.
        OSError: the disk is full.
        FloatingPointError: the loss is no longer finite.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written. It is a KeyboardInterrupt.
    """
    chosen = settings_of_call(ModelTrainingSettings, "train", preset, settings)
    folder = Path(out)
    check_run_folder(folder)
    given = {"tokens": tokens, "codec": codec, "out": out, "preset": preset, **settings}
    with lock_folder(folder):
        accelerator = make_accelerator(
            folder, chosen.mixed_precision, chosen.tracker, chosen.gradient_accumulation
        )
        with accelerator.main_process_first():
            if not isinstance(tokens, TokenDataset):
                tokens = load_tokens(tokens)
            codec = codec_of(tokens.provenance.spec, codec, device="cpu")
        return train_model(accelerator, tokens, codec, folder, chosen, command=_call(given))


def _call(given: dict[str, Any]) -> str:
    """Return the call of `train` as Python code; objects are shown by their argument's name."""
    plain = str | int | float | None
    shown = {
        name: repr(str(value) if isinstance(value, Path) else value)
        if isinstance(value, plain | Path)
        else name
        for name, value in given.items()
    }
    first = ", ".join(shown.pop(name) for name in ("tokens", "codec", "out"))
    return f"tokgen.train({', '.join([first, *(f'{k}={v}' for k, v in shown.items())])})"


def train_model(
    accelerator: Any,
    tokens: TokenDataset,
    codec: Codec,
    folder: Path,
    settings: ModelTrainingSettings,
    *,
    may_change: tuple[str, ...] = MAY_CHANGE,
    command: str = "",
) -> TokenTransformer:
    """Train a model as `train` does, with an Accelerator that `make_accelerator` made for `folder`.

    Args:
        settings: they are saved in settings.json, with the fields of a subclass.
        command: command or call for the model's card.
        may_change: names of settings that may change when the training continues.
    """
    with accelerator.main_process_first():
        about = claim_training(accelerator, folder, settings, codec, tokens, may_change)
    check_train_split(tokens)
    set_seed(settings.seed)
    model = make_transformer(codec, tokens, settings)
    training = make_training(accelerator, model, tokens, settings, folder)
    if accelerator.is_main_process:
        save_settings(folder, settings, **about)
        start_trackers(accelerator, settings)
    for batch in training.batches():
        training.descend(training.loss(batch))
    for tracker in accelerator.trackers:
        tracker.finish()
    if training.interrupted:
        accelerator.end_training()
        raise Interrupted(f"the training in {folder} was interrupted: repeat the call to continue")
    training.save_model(folder / "model", replace(training.card, command=command))
    if accelerator.is_main_process:
        plot_curves(training.history, folder / "curves.png")
    accelerator.free_memory()
    # Load the model as users do: Accelerate left the trained one in mixed precision.
    return load_transformer(folder / "model").to(accelerator.device).eval()


def claim_training(
    accelerator: Any,
    folder: Path,
    settings: Any,
    codec: Codec,
    tokens: TokenDataset,
    may_change: tuple[str, ...],
) -> dict[str, Any]:
    """Refuse to continue a training with other settings, codec, tokens or conditions.

    Args:
        accelerator: of the training.
        folder: folder of the run.
        settings: settings to continue with, a dataclass.
        codec: the codec of the tokens.
        tokens: tokens to train on.
        may_change: names of settings that may change.
    Returns:
        what `save_settings` is to keep beside the settings.
    Raises:
        ValueError: as `claim_run`.
    """
    about: dict[str, Any] = {
        "codec": codec.spec.as_dict(),
        "data": tokens.provenance.as_dict(),
    }
    about |= conditions_of(accelerator)
    # without it, a test corpus that is named later would change what is trained on
    made = tokens.made_test_split and not getattr(settings, "tokens", None)
    about["made_test_split"] = made or None
    named = unclaimed(codec.spec, "codec", "data.codec")
    claim_run(folder, settings, free=(*may_change, *named), **about)
    return about
