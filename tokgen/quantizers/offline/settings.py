"""Names of the offline quantizers, and settings of QINCo2's training.

Imports no torch, so that settings are read fast.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokgen.runs.checks import check_least, check_positive

__all__ = ["KINDS", "QincoTraining"]

KINDS = ("kmeans", "lsq", "pq", "opq", "fsq", "rfsq", "qinco2")  # of offline quantizers


@dataclass(frozen=True)
class QincoTraining:
    """How QINCo2 is trained. The paper's values are in brackets.

    Attributes:
        steps: optimiser steps (60 passes over 10 million frames).
        batch_size: frames per process and step [1024].
        beam: paths of the search that chooses the codes to train on [32]; on little data a greedy
            choice trains better.
        learning_rate: AdamW's at its highest [8e-4]; it falls to 0 along a cosine.
        warmup: steps in which it rises.
        weight_decay: AdamW's [0.1].
        clip: limit of each value of the gradient [0.1].
        noise: standard deviation of normal noise on normalised frames, against overfitting [0].
        replace_every: steps after which rows that no frame has used since are replaced by frames of
            the data [an epoch, by noise].
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        seed: of batches, and of the k-means that it starts from.
    """

    steps: int = 4000
    batch_size: int = 1024
    beam: int = 1
    learning_rate: float = 8e-4
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 0.1
    noise: float = 0.0
    replace_every: int = 200
    validate_every: int = 500
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, steps=1, batch_size=1, beam=1, warmup=0, weight_decay=0, noise=0, seed=0)
        check_least(self, replace_every=1, validate_every=1, checkpoint_every=1)
        check_positive(self, "learning_rate", "clip")
