"""Find the entropy model of a codec.

A codec's folder may hold a folder `entropy`: `static.safetensors`, a table of counts, and a trained
model, `config.json` with `model.safetensors`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tokgen.bitstream.tgc.entropy import (
    DEPTH_MODES,
    MODES,
    AdaptiveCounts,
    EntropyModel,
    StaticCounts,
)
from tokgen.bitstream.tgc.layout import Header, short_hash
from tokgen.codec.base import Codec
from tokgen.runs.checks import closest
from tokgen.zoo.names import find_in_zoo

__all__ = [
    "AUTO",
    "FOLDER",
    "STATIC",
    "TRAINED",
    "choose_model",
    "entropy_folder",
    "load_model",
    "load_trained",
    "mode_of",
    "model_of",
]

AUTO = "auto"  # the first of model, static and adaptive that a codec has; packed with a depth
FOLDER, STATIC, TRAINED = "entropy", "static.safetensors", "config.json"


def entropy_folder(codec: Codec) -> Path | None:
    """Return the folder of a codec's entropy models, None if it has none on this machine."""
    name = codec.spec.name if codec.loaded_from is None else codec.loaded_from[0]
    folder = find_in_zoo(name) or Path(name)
    return folder / FOLDER if (folder / FOLDER).is_dir() else None


def choose_model(
    codec: Codec, entropy: str | Path | EntropyModel = AUTO
) -> tuple[str, EntropyModel | None]:
    """Return the mode and the entropy model to code with; None for packed codes.

    Args:
        codec: the codec that makes the codes.
        entropy: "auto", one of `MODES`, a model, a table's .safetensors file, or the folder of a
            trained model. "auto" is "packed" for a codec with `rate`.
    Raises:
        ValueError: the codec has no such model, or it is made for another codec, or is a trained
            model for a codec with `rate`.
    """
    if codec.rate is not None:
        entropy = "packed" if str(entropy) == AUTO else entropy
        mode, model = _choose_model(codec, entropy, entropy_folder(codec))
        if mode not in DEPTH_MODES:
            raise ValueError(
                f"entropy = {mode}: trained models need all levels of each frame, but their number "
                f"varies; use entropy = packed, or encode {codec.spec.name} with n_codebooks"
            )
        return mode, model
    return _choose_model(codec, entropy, entropy_folder(codec))


def _choose_model(
    codec: Codec, entropy: str | Path | EntropyModel, folder: Path | None
) -> tuple[str, EntropyModel | None]:
    """Choose as `choose_model`, from the models in a folder."""
    if isinstance(entropy, EntropyModel):
        return mode_of(entropy), entropy
    spec = codec.spec
    table, trained = (None if folder is None else folder / name for name in (STATIC, TRAINED))
    has_table, has_trained = (p is not None and p.is_file() for p in (table, trained))
    mode = str(entropy)
    if mode == AUTO:
        mode = "model" if has_trained else "static" if has_table else "adaptive"
    if mode == "packed":
        return mode, None
    if mode == "adaptive":
        return mode, AdaptiveCounts(spec.n_codebooks, spec.codebook_size)
    if mode == "static" and has_table and table is not None:
        return mode, StaticCounts.load(table)
    if mode == "model" and has_trained and folder is not None:
        return mode, load_trained(folder)
    if mode in MODES:
        raise ValueError(
            f"entropy = {mode}: {spec.name} has no such model in its folder {FOLDER}; use adaptive "
            "or packed, or give the model"
        )
    if not Path(entropy).exists():
        known = (AUTO, *MODES)
        raise ValueError(
            f"entropy = {mode}{closest(mode, known)}: not a file or folder, and not one of "
            f"{', '.join(known)}"
        )
    model = load_model(entropy)
    return mode_of(model), model


def model_of(
    header: Header, codec: Codec, given: EntropyModel | None = None
) -> EntropyModel | None:
    """Return the entropy model that a stream of a codec was made with.

    It is searched for beside this codec, and beside the zoo's codec that the stream names, of which
    this one may be a version with another decoder.

    Args:
        given: a model to use if the stream names it.
    Raises:
        ValueError: it is not beside the codec on this machine.
    """
    if header.mode == "packed":
        return None
    if given is not None and short_hash(given.model_hash) == header.model_hash:
        return given
    maker = find_in_zoo(header.codec)  # a name, never a path
    for folder in (entropy_folder(codec), None if maker is None else maker / FOLDER):
        with suppress(ValueError):
            model = _choose_model(codec, header.mode, folder)[1]
            if model is not None and short_hash(model.model_hash) == header.model_hash:
                return model
    raise ValueError(
        f"the entropy model {header.model_hash!r} ({header.mode}) is not beside the codec "
        f"{codec.spec.name!r}: give the model that the file was made with"
    )


def mode_of(model: EntropyModel) -> str:
    """Return the mode of streams that are coded with a model."""
    if isinstance(model, StaticCounts):
        return "static"
    return "adaptive" if isinstance(model, AdaptiveCounts) else "model"


def load_model(path: str | Path) -> EntropyModel:
    """Load a table's .safetensors file, or the folder of a trained model.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: it holds no entropy model.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no entropy model: {path}")
    return load_trained(Path(path)) if Path(path).is_dir() else StaticCounts.load(path)


def load_trained(folder: Path) -> EntropyModel:
    """Load the trained model in a folder."""
    from tokgen.modelling.integer_depth import IntegerDepthNetwork

    return IntegerDepthNetwork.from_pretrained(folder).stream()
