"""Processes that start with the libraries of the tests already imported.

Importing torch and its company takes several seconds of processor time. So one server imports them
once, and each process of `fork_context()` is a fork of that server.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import sys
from multiprocessing.context import BaseContext

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
IMPORTED = [
    "torch", "transformers", "accelerate", "datasets", "tensorboard", "jsonargparse",
    "tokgen.zoo.adapters.dac", "tokgen.zoo.adapters.encodec", "tokgen.comparison.telephone_results",
    "tokgen.training.loop", "tokgen.codec_training.validation", "tokgen.tokens.tokenizing",
    "tokgen.plotting", "moonshine_voice", "x_transformers", "makers.imports", "makers.tokens",
]  # fmt: skip


def fork_context() -> BaseContext:
    """Start the server if it is not running, and return the context of its forks."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT, PYTHONPATH=os.pathsep.join(sys.path))
    try:
        multiprocessing.set_forkserver_preload(IMPORTED)
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return multiprocessing.get_context("forkserver")
