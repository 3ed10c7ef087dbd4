"""Load models of transformers: only from safetensors, and every weight must fit."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.nn.checks import building, check_common, check_finite, check_size
from tokgen.nn.files import WeightsHeader, brief, read_header, read_json, shorten
from tokgen.nn.hub import CONFIG
from tokgen.runs.progress import quiet_libraries

__all__ = ["from_transformers", "load_transformers"]

_REDIRECTS = {
    "configuration_files": "put the settings into config.json",
    "quantization_config": "save the weights in floating point",
    "transformers_weights": "name the weights model.safetensors",
}  # settings of transformers, and what to do


def load_transformers(
    folder: Path,
    network_class: Callable[[dict[str, Any]], Any],
    check: Callable[[Path, dict[str, Any], WeightsHeader], None],
) -> Any:
    """Load a model in float32 from a folder that its `save_pretrained` wrote.

    Args:
        folder: see above.
        network_class: returns the model's class for a config.json.
        check: checks folder, config.json and header of the weights before the model is built.
    Raises:
        ValueError: another model's config, a wrong setting, or weights that do not fit.
    """
    config, header = read_json(folder / CONFIG), read_header(folder, sharded=True)
    _refuse_redirects(folder / CONFIG, config)
    check(folder, config, header)
    model_class = network_class(config)
    config_class = model_class.config_class
    if (found := config.get("model_type")) != config_class.model_type:
        raise ValueError(
            f"{folder}: config.json is of a {shorten(found)}, not a "
            f"{config_class.model_type!r} model"
        )
    with building(header, config, meta=True), quiet_libraries():
        skeleton = model_class(config_class.from_dict(config))
    check_size(skeleton, header)
    check_common(skeleton.state_dict(), header)
    try:
        with quiet_libraries(), _hidden_report() as report:
            model, loading = model_class.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (RuntimeError, SafetensorError) as error:
        reason = next((line for line in report if "MISMATCH" in line), brief(error))
        raise ValueError(f"{folder}: weights do not fit config.json: {reason}") from error
    wrong = {kind: sorted(map(str, keys)) for kind, keys in loading.items() if keys}
    if wrong:
        raise ValueError(f"{folder}: weights do not fit config.json: {wrong}")
    check_finite(model.state_dict(), header.path)
    return model


@contextmanager
def _hidden_report() -> Iterator[list[str]]:
    """Collect the lines of transformers' table of weights that do not fit, and do not print it."""
    log, report = logging.getLogger("transformers.modeling_utils"), list[str]()

    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "LOAD REPORT" not in text:
            return True
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        report.extend(" ".join(line.split())[:300] for line in plain.splitlines())
        return False

    log.addFilter(keep)
    try:
        yield report
    finally:
        log.removeFilter(keep)


def _refuse_redirects(path: Path, config: dict[str, Any]) -> None:
    """Raise ValueError if settings make transformers read other files or fetch code."""
    for key in _REDIRECTS:
        if config.get(key) is not None:
            raise ValueError(
                f"{path}: {key} = {str(config[key])[:60]!r} is not supported: {_REDIRECTS[key]}"
            )
    kernel = re.search(r'"_?attn_implementation": "([^"]*/[^"]*)"', json.dumps(config))
    if kernel is not None:
        raise ValueError(
            f"{path}: attn_implementation = {kernel[1][:60]!r} would fetch code; delete the setting"
        )


def from_transformers(name: str) -> Any:
    """Return a class of transformers; raise ModuleNotFoundError if this version lacks it."""
    import_torchaudio()  # some models of transformers import torchaudio
    import transformers

    try:
        return getattr(transformers, name)
    except AttributeError as error:
        raise ModuleNotFoundError(
            f"transformers {transformers.__version__} has no {name}: pip install -U transformers"
        ) from error
