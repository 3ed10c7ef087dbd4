"""DAC in training: weight norm of its convolutions, and its first weights.

transformers builds and saves `DacModel` without weight norm, so it is applied before training and
folded into the weights before saving.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from transformers import DacModel

__all__ = ["apply_weight_norm", "fold_weight_norm", "has_weight_norm", "reset_weights"]


def apply_weight_norm(model: DacModel, *, frozen: tuple[str, ...] = ()) -> None:
    """Split the weights of convolutions into direction and norm. The outputs stay the same.

    Args:
        model: see above.
        frozen: names of parts that keep their weights to the bit, so without weight norm.
    """
    if has_weight_norm(model):
        return
    plain = {name: copy.deepcopy(model.get_submodule(name)) for name in frozen}
    model.apply_weight_norm()
    for name, part in plain.items():
        setattr(model, name, part)


def fold_weight_norm(model: DacModel) -> DacModel:
    """Return a copy without weight norm. Its weights, and so its outputs, are the same.

    torch's `remove_parametrizations` is not used: it breaks other copies of the same model.
    """
    weights = {k: w for k, w in model.state_dict().items() if ".parametrizations." not in k}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            weights[f"{name}.weight"] = module.weight
    with torch.device("meta"):
        folded = type(model)(model.config)
    folded.load_state_dict({k: w.detach().clone() for k, w in weights.items()}, assign=True)
    return folded.train(model.training)


def has_weight_norm(model: nn.Module) -> bool:
    """True if any layer has weight norm."""
    return any(parametrize.is_parametrized(module, "weight") for module in model.modules())


@torch.no_grad()
def reset_weights(model: DacModel) -> None:
    """Draw the weights as the authors' code does.

    Codebooks are N(0, 1) and biases of convolutions 0. Weights of convolutions have torch's own
    distribution: the authors' truncated normal has no effect, since weight norm computes the
    weights anew. transformers draws codebooks and weights with a standard deviation of 0.02.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.Conv1d | nn.ConvTranspose1d):
            module.reset_parameters()
        if isinstance(module, nn.Conv1d):
            assert module.bias is not None
            module.bias.zero_()
