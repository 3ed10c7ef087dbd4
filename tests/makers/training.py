"""A short training on made-up tokens, in this process or as a script in several.

    python tests/makers/training.py FOLDER '{"steps": 8, "batch_size": 4}' {ddp,fsdp} [STEP]

With STEP it exits at that step, as if killed.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, set_seed
from datasets import Dataset, DatasetDict

from makers.causal import SIZES as CAUSAL_SIZES
from makers.paths import ROOT
from tokgen.codec.spec import CodecSpec
from tokgen.modelling.causal_depth import CausalDepthNetwork
from tokgen.modelling.masked import MaskedTransformer
from tokgen.runs.accelerator import make_accelerator
from tokgen.tokens.columns import token_features
from tokgen.tokens.dataset import TokenDataset
from tokgen.tokens.provenance import Provenance, attach_provenance
from tokgen.training.causal import CausalTraining
from tokgen.training.masked import MaskedTraining
from tokgen.training.settings import CausalTrainingSettings, LoopSettings, TrainingSettings

LEVELS, SIZE, COEFFICIENTS = 3, 20, 4
FEW = {
    "steps": 10, "batch_size": 4, "crop_seconds": 1.0, "learning_rate": 3e-3, "log_every": 1,
    "validate_every": 5, "checkpoint_every": 4,
}  # fmt: skip
LENGTHS = [5, 60, 12, 33, 27, 60, 41, 8, 19, 55, 60]


def make_rows(lengths: list[int], seed: int = 0) -> Dataset:
    """Rows whose codes depend on the conditioning; the id of row i is str(i)."""
    draw = np.random.default_rng(seed)
    rows = []
    for i, n in enumerate(lengths):
        frames = draw.normal(size=(n, COEFFICIENTS)).astype(np.float16)
        codes = (frames.argmax(1)[:, None] * np.arange(1, LEVELS + 1)) % SIZE
        rows.append(
            {
                "id": str(i),
                "codes": codes.astype(np.uint16),
                "n_samples": 320 * n,
                "text": None,
                "speaker": None,
                "mfcc": frames,
            }
        )
    return Dataset.from_list(rows, features=token_features(LEVELS, {"mfcc": COEFFICIENTS}))


def make_tokens(lengths: list[int] | None = None, variable: bool = False) -> TokenDataset:
    """A token dataset at 50 frames a second, with a validation split.

    With `variable`, frames have 1 to `LEVELS` levels.
    """
    spec = CodecSpec("made-up", 16000, 320, LEVELS, SIZE, "0" * 64)
    about = Provenance(spec.as_dict(), 16000, 320, LEVELS, SIZE, None, "0", "made-up", "0" * 64, [])
    train, validation = make_rows(lengths or LENGTHS), make_rows([20, 30, 25], seed=1)
    if variable:
        about = replace(about, level=1.0)
        train, validation = (vary_rows(rows, about) for rows in (train, validation))
    return TokenDataset(DatasetDict(train=train, validation=validation), about)


def vary_rows(rows: Dataset, about: Provenance) -> Dataset:
    """Give each frame the depth 1 to `LEVELS` that the signs of its conditioning tell."""
    changed = []
    for row in rows:
        depth = 1 + (np.asarray(row["mfcc"])[:, : LEVELS - 1] > 0).sum(1)
        codes = [frame[:n] for frame, n in zip(row["codes"], depth, strict=True)]
        changed.append({**row, "codes": codes})
    features = token_features(LEVELS, {"mfcc": COEFFICIENTS}, variable=True)
    return attach_provenance(Dataset.from_list(changed, features=features), about)


def make_model(**more: Any) -> MaskedTransformer:
    sizes = {"dim": 32, "depth": 2, "heads": 2, "dim_head": 32, "embedding": "learned", **more}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedTransformer(
            n_codebooks=LEVELS, codebook_size=SIZE, conditioning_dim=COEFFICIENTS, **sizes
        )


def make_settings(**more: Any) -> TrainingSettings:
    """Ten steps with four excerpts of one second each; every step is logged."""
    return TrainingSettings(**{**FEW, **more})


def make_causal_settings(**more: Any) -> CausalTrainingSettings:
    """The same for a causal model, with level dropout."""
    few = {"warmup": 0, "level_dropout": 0.4}
    return CausalTrainingSettings(**{**FEW, **few, **more})


def accelerator_for(folder: Path, settings: LoopSettings, precision: str = "no") -> Accelerator:
    return make_accelerator(folder, precision, "none", settings.gradient_accumulation)


def make_training(
    folder: Path,
    settings: LoopSettings,
    accelerator: Accelerator | None = None,
    tokens: TokenDataset | None = None,
    dropout: float = 0.0,
) -> Any:
    """The training of a tiny model that the settings are for."""
    accelerator = accelerator or accelerator_for(folder, settings)
    set_seed(0)
    if isinstance(settings, CausalTrainingSettings):
        model = CausalDepthNetwork(
            n_codebooks=LEVELS, codebook_size=SIZE, **CAUSAL_SIZES, dropout=dropout
        )
        return CausalTraining(accelerator, model, tokens or make_tokens(), settings, folder)
    varies = tokens is not None and tokens.provenance.rate is not None
    model = make_model(dropout=dropout, rate={"level": 1.0} if varies else None)
    return MaskedTraining(accelerator, model, tokens or make_tokens(), settings, folder)


def train(
    folder: Path,
    settings: LoopSettings,
    *,
    accelerator: Accelerator | None = None,
    tokens: TokenDataset | None = None,
    stop: int | None = None,
    dropout: float = 0.0,
) -> Any:
    """Train as a recipe does, and save the model in `folder`/model.

    Args:
        folder: of the run.
        settings: of the training.
        accelerator: None makes one.
        tokens: None uses `make_tokens()`.
        stop: exit the process at this step.
        dropout: of the model.
    """
    training = make_training(folder, settings, accelerator, tokens, dropout)
    for batch in training.batches():
        if training.step == stop:
            os._exit(9)
        training.descend(training.loss(batch))
    training.save_model(folder / "model")
    return training


def shard_on_cpu(settings: TrainingSettings, folder: Path) -> Accelerator:
    """Make an Accelerator that shards as recipes/accelerate/fsdp.yaml says, on the CPU over gloo.

    Accelerate enables FSDP only on GPUs, but its code also runs on the CPU if it is told to.
    """
    file = ROOT / "recipes" / "accelerate" / "fsdp.yaml"
    config = yaml.safe_load(file.read_text())["fsdp_config"]
    accelerator = accelerator_for(folder, settings)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=config["fsdp_version"],
        reshard_after_forward=config["fsdp_reshard_after_forward"],
        auto_wrap_policy=config["fsdp_auto_wrap_policy"],
        transformer_cls_names_to_wrap=config["fsdp_transformer_layer_cls_to_wrap"].split(","),
        state_dict_type=config["fsdp_state_dict_type"],
        cpu_ram_efficient_loading=config["fsdp_cpu_ram_efficient_loading"],
    )
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state.update(PartialState._shared_state, fsdp_plugin=plugin)
    return accelerator


if __name__ == "__main__":
    torch.set_num_threads(1)
    settings, folder = make_settings(**json.loads(sys.argv[2])), Path(sys.argv[1])
    sharded = shard_on_cpu(settings, folder) if sys.argv[3] == "fsdp" else None
    stop = int(sys.argv[4]) if len(sys.argv) > 4 else None
    done = train(folder, settings, accelerator=sharded, stop=stop)
    if done.accelerator.is_main_process:
        print(f"{done.accelerator.num_processes} processes, {done.accelerator.distributed_type}")
    done.accelerator.end_training()
