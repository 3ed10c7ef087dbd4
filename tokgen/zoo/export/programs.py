"""Write networks as programs, and open them: ONNX files and torch's .pt2 files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokgen.extras import require

__all__ = ["LEAST_FRAMES", "RUNTIMES", "open_program", "require_format", "write_program"]

RUNTIMES = {"onnx": "onnxruntime", "pt2": "torch.export.load"}
# Fewest frames of audio that an encoder takes: torch's exporter guards against lengths of 1.
LEAST_FRAMES = {"onnx": 0, "pt2": 2}


def require_format(format: str) -> None:
    """Raise ModuleNotFoundError if a library of a format is not installed; pt2 needs torch only."""
    for name in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        require(name, "export")


def write_program(
    format: str, network: nn.Module, example: Tensor, given: str, found: str, path: Path
) -> None:
    """Write a network of one input whose first and last axes have any length.

    Args:
        format: one of `FORMATS`.
        network: the network, on the CPU.
        example: an input [B, C, N], with all axes but the second above 1.
        given, found: names of input and output.
        path: file to write.
    Raises:
        ValueError: torch's exporter fixed a length.
    """
    dynamic = {given: {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}}
    with _quiet(), torch.no_grad():
        if format == "pt2":
            shapes = tuple(dynamic.values())
            exported = torch.export.export(network, (example,), dynamic_shapes=shapes)
            _check_lengths(_shape_of(exported), path)
            path.unlink(missing_ok=True)
            torch.export.save(exported, path)
            return
        program: Any = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[given],
            output_names=[found],
            verbose=False,
        )
    _check_lengths(list(program.model.graph.inputs[0].shape), path)
    program.save(path)


def open_program(format: str, path: Path, given: str) -> Callable[[Tensor], Tensor]:
    """Return the function of a program that `write_program` wrote, on the CPU.

    Args:
        format: one of `FORMATS`.
        path: the file.
        given: name of its input.
    """
    if format == "pt2":
        with _quiet():
            module = torch.export.load(path).module()

        def run(x: Tensor) -> Tensor:
            with torch.no_grad():
                found: Tensor = module(x)
            return found

        return run
    session = require("onnxruntime", "export").InferenceSession(str(path))
    return lambda x: torch.from_numpy(session.run(None, {given: x.numpy()})[0])


def _shape_of(exported: Any) -> list[Any]:
    """Return the shape of a program's input; what may vary is no int."""
    names = exported.graph_signature.user_inputs
    [node] = [node for node in exported.graph.nodes if node.name == names[0]]
    return list(node.meta["val"].shape)


def _check_lengths(shape: list[Any], path: Path) -> None:
    if any(isinstance(shape[axis], int) for axis in (0, 2)):
        raise ValueError(f"{path}: the exporter fixed a length, {shape}; try another torch")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch's exporter says about libraries that are not needed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "No complete tensor found in the group")
            yield
    finally:
        logger.setLevel(before)
