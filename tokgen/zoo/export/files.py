"""Write a codec as ONNX files, and check them with onnxruntime. Needs the extra `export`.

    exported = export_codec("speech-16k", "exported")
    session = onnxruntime.InferenceSession("exported/encoder.onnx")
    (codes,) = session.run(None, {"waveform": waveform})  # float32 [B, 1, N] -> int64 [B, K, T]

`encoder.onnx` and `decoder.onnx` take any number of items and samples or frames. `codec.json` has
the codec's numbers. The files need neither tokgen nor torch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.extras import require
from tokgen.results import Grid, Result
from tokgen.runs.checks import check_writable
from tokgen.runs.folder import write_json
from tokgen.zoo.cards import numbers
from tokgen.zoo.export.networks import networks_of
from tokgen.zoo.lookup import as_codec

__all__ = ["LEAST_MATCH", "NAMES", "Exported", "check_files", "check_outputs", "export_codec"]

NAMES = ("encoder.onnx", "decoder.onnx", "codec.json")
LEAST_MATCH = 0.98  # share of equal codes; onnxruntime's kernels round differently from torch's
_CHECKED = (1, 0.5, 1, 3, 12.4, 50)  # lengths of the check: a sample, and then frames


@dataclass(frozen=True)
class Exported(Result):
    """Files that were written, and how they compare with the codec.

    Attributes:
        folder: folder of the files.
        spec: numbers of the codec.
        sizes: bytes of each file.
        n_codes: codes that were compared, of audio of several lengths.
        match: share of them that onnxruntime finds equal on the CPU.
        difference: largest difference of decoded samples.
    """

    folder: Path
    spec: CodecSpec
    sizes: dict[str, int]
    n_codes: int
    match: float
    difference: float

    def parts(self) -> list[Grid | str]:
        files = [f"{self.folder / name}  {n / 1e6:.2f} MB" for name, n in self.sizes.items()]
        check = (
            f"onnxruntime: {100 * self.match:.2f} % of {self.n_codes} codes equal, samples within "
            f"{self.difference:.1e}"
        )
        return [*files, check]

    def records(self) -> list[dict[str, Any]]:
        about = {"folder": str(self.folder), "codec": self.spec.name, "n_codes": self.n_codes}
        return [{**about, "match": self.match, "difference": self.difference}]

    def to_dict(self) -> dict[str, Any]:
        return self.records()[0] | {"files": dict(self.sizes)}


def export_codec(
    codec: str | Path | Codec, out: str | Path, *, overwrite: bool = False
) -> Exported:
    """Write encoder and decoder of a codec as ONNX files, and compare them with the codec.

    The codes are greedy, without beam search, and have all levels of the codec's spec. A codec of
    variable bitrate is exported with all levels in every frame.

    Args:
        codec: name for `load_codec`, or a codec on the CPU: tokgen's STFT codec or a DAC.
        out: folder of the files; is created if it is missing.
        overwrite: replace existing files.
    Raises:
        ModuleNotFoundError: the extra `export` is missing.
        FileExistsError: a file exists, and `overwrite` is False.
        ValueError: another kind of codec, or files that do not give the codec's codes.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name, "export")
    check_outputs(out, overwrite=overwrite)
    loaded = as_codec(codec, device="cpu")
    encoder, decoder = networks_of(loaded)
    if loaded.device.type != "cpu":
        raise ValueError(f"the codec is on {loaded.device}, and export runs on the CPU: move it")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    s = loaded.spec
    waveform = 0.1 * torch.randn(2, 1, 3 * s.hop_length + 1)
    codes = torch.zeros(2, s.n_codebooks, 3, dtype=torch.int64)
    _write(encoder, waveform, "waveform", "codes", folder / NAMES[0])
    _write(decoder, codes, "codes", "waveform", folder / NAMES[1])
    write_json(folder / NAMES[2], numbers(s))
    sizes = {name: (folder / name).stat().st_size for name in NAMES}
    exported = Exported(folder, s, sizes, *check_files(loaded, folder))
    if exported.match < LEAST_MATCH:
        raise ValueError(
            f"{folder}: only {100 * exported.match:.1f} % of the codes are those of {s.name}; try "
            "other versions of torch and onnxscript, and report this"
        )
    return exported


def check_outputs(out: str | Path, *, overwrite: bool = False) -> None:
    """Check that the files of `export_codec` can be written.

    Raises:
        FileExistsError, ValueError, OSError: as `tokgen.runs.checks.check_writable`.
    """
    for name in NAMES:
        check_writable(Path(out) / name, overwrite=overwrite)


@torch.no_grad()
def check_files(codec: Codec, folder: Path) -> tuple[int, float, float]:
    """Compare exported files with a codec, on noise that fades to silence, of several lengths.

    Returns:
        number of codes, share of equal ones, and largest difference of samples decoded from the
        codec's own codes.
    """
    runtime = require("onnxruntime", "export")
    encode, decode = (runtime.InferenceSession(str(folder / name)) for name in NAMES[:2])
    generator = torch.Generator().manual_seed(0)
    n_codes, n_equal, difference = 0, 0, 0.0
    for i, frames in enumerate(_CHECKED):
        n = max(2, round(frames * codec.spec.hop_length)) if i else 1
        audio = 0.1 * torch.randn(min(2, n), 1, n, generator=generator)
        audio = audio * (1.1 - torch.linspace(0, 1.2, n)).clamp(min=0)
        codes = codec.encode(audio)
        found = torch.from_numpy(encode.run(None, {"waveform": audio.numpy()})[0])
        if found.shape != codes.shape:
            raise ValueError(
                f"{folder / NAMES[0]}: {n} samples give codes of shape {tuple(found.shape)}, not "
                f"{tuple(codes.shape)}"
            )
        n_codes, n_equal = n_codes + codes.numel(), n_equal + int((found == codes).sum())
        heard = torch.from_numpy(decode.run(None, {"codes": codes.numpy()})[0])
        difference = max(difference, float((heard - codec.decode(codes)).abs().max()))
    return n_codes, n_equal / n_codes, difference


def _write(network: nn.Module, example: Tensor, given: str, found: str, path: Path) -> None:
    """Export a network of one input whose first and last axes have any length."""
    dynamic = {given: {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}}
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[given],
            output_names=[found],
            verbose=False,
        )
    shape = list(program.model.graph.inputs[0].shape)
    if any(isinstance(shape[axis], int) for axis in (0, 2)):
        raise ValueError(f"{path}: the exporter fixed a length, {shape}; try another torch")
    program.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch's exporter says about libraries that are not needed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(before)
