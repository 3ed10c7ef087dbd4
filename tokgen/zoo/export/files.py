"""Write a codec as ONNX files or as torch's .pt2 files, and check them.

    exported = export_codec("speech-16k", "exported")     # needs the extra `export`
    session = onnxruntime.InferenceSession("exported/encoder.onnx")
    (codes,) = session.run(None, {"waveform": waveform})  # float32 [B, 1, N] -> int64 [B, K, T]

    export_codec("speech-16k", "exported", format="pt2")  # needs torch only
    codes = torch.export.load("exported/encoder.pt2").module()(waveform)

Encoder and decoder take any number of items and samples or frames; a .pt2 encoder takes at least
two frames of audio. `codec.json` has the codec's numbers. The files do not need tokgen, and ONNX
files do not need torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.results import Grid, Result, to_json
from tokgen.runs.folder import write_json
from tokgen.zoo.cards import numbers
from tokgen.zoo.export.networks import networks_of
from tokgen.zoo.export.programs import (
    LEAST_FRAMES,
    RUNTIMES,
    open_program,
    require_format,
    write_program,
)
from tokgen.zoo.export.settings import check_outputs, names_of
from tokgen.zoo.lookup import as_codec

__all__ = ["LEAST_MATCH", "Exported", "check_files", "export_codec"]

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
        match: share of them that the files give on the CPU.
        difference: largest difference of decoded samples.
        format: "onnx" or "pt2".
    """

    folder: Path
    spec: CodecSpec
    sizes: dict[str, int]
    n_codes: int
    match: float
    difference: float
    format: str = "onnx"

    def parts(self) -> list[Grid | str]:
        files = [f"{self.folder / name}  {n / 1e6:.2f} MB" for name, n in self.sizes.items()]
        check = (
            f"{RUNTIMES[self.format]}: {100 * self.match:.2f} % of {self.n_codes} codes equal, "
            f"samples within {self.difference:.1e}"
        )
        return [*files, check]

    def records(self) -> list[dict[str, Any]]:
        about = {"folder": str(self.folder), "codec": self.spec.name, "format": self.format}
        return [
            {**about, "n_codes": self.n_codes, "match": self.match, "difference": self.difference}
        ]

    def to_dict(self) -> dict[str, Any]:
        return self.records()[0] | {"files": dict(self.sizes)}


def export_codec(
    codec: str | Path | Codec, out: str | Path, *, format: str = "onnx", overwrite: bool = False
) -> Exported:
    """Write encoder and decoder of a codec as files, and compare them with the codec.

    The codes are greedy, without beam search, and have all levels of the codec's spec. A codec of
    variable bitrate is exported with all levels in every frame.

    Args:
        codec: name for `load_codec`, or a codec on the CPU: tokgen's STFT codec or a DAC.
        out: folder of the files; is created if it is missing. It may hold the same codec in another
            format.
        format: "onnx", or "pt2" for programs of `torch.export`.
        overwrite: replace existing files.
    Raises:
        ModuleNotFoundError: the extra `export`, which ONNX files need, is missing.
        FileExistsError: a file exists, and `overwrite` is False.
        ValueError: another kind of codec, or files that do not give the codec's codes.
    """
    names = names_of(format)
    require_format(format)
    check_outputs(out, format, overwrite=overwrite)
    loaded = as_codec(codec, device="cpu")
    encoder, decoder = networks_of(loaded)
    if loaded.device.type != "cpu":
        raise ValueError(f"the codec is on {loaded.device}, and export runs on the CPU: move it")
    folder, s = Path(out), loaded.spec
    others = [name for kind in RUNTIMES if kind != format for name in names_of(kind)[:2]]
    others = [name for name in others if (folder / name).exists()]
    if (folder / names[2]).is_file() and (others or not overwrite):
        _check_same(folder / names[2], s, others if overwrite else [])
    folder.mkdir(parents=True, exist_ok=True)
    waveform = 0.1 * torch.randn(2, 1, 3 * s.hop_length + 1)
    codes = torch.zeros(2, s.n_codebooks, 3, dtype=torch.int64)
    write_program(format, encoder, waveform, "waveform", "codes", folder / names[0])
    write_program(format, decoder, codes, "codes", "waveform", folder / names[1])
    write_json(folder / names[2], numbers(s))
    sizes = {name: (folder / name).stat().st_size for name in names}
    exported = Exported(folder, s, sizes, *check_files(loaded, folder, format), format=format)
    if exported.match < LEAST_MATCH:
        raise ValueError(
            f"{folder}: only {100 * exported.match:.1f} % of the codes are those of {s.name}; try "
            "other versions of torch and onnxscript, and report this"
        )
    return exported


def _check_same(path: Path, spec: CodecSpec, others: Sequence[str]) -> None:
    """Raise ValueError if codec.json is of another codec.

    Args:
        others: files of that codec which would not be replaced.
    """
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError):
        found = None
    if found != json.loads(to_json(numbers(spec))):
        wanted = f"delete {' and '.join(others)} first" if others else "set overwrite"
        raise ValueError(
            f"{path} does not have the numbers of {spec.name}: give another folder, or {wanted}"
        )


@torch.no_grad()
def check_files(codec: Codec, folder: Path, format: str = "onnx") -> tuple[int, float, float]:
    """Compare exported files with a codec, on noise that fades to silence, of several lengths.

    Returns:
        number of codes, share of equal ones, and largest difference of samples decoded from the
        codec's own codes.
    """
    names = names_of(format)
    encode = open_program(format, folder / names[0], "waveform")
    decode = open_program(format, folder / names[1], "codes")
    generator = torch.Generator().manual_seed(0)
    n_codes, n_equal, difference = 0, 0, 0.0
    for i, frames in enumerate(_CHECKED):
        n = max(2, round(frames * codec.spec.hop_length)) if i else 1
        if codec.spec.n_frames(n) < LEAST_FRAMES[format]:
            continue
        audio = 0.1 * torch.randn(min(2, n), 1, n, generator=generator)
        audio = audio * (1.1 - torch.linspace(0, 1.2, n)).clamp(min=0)
        codes = codec.encode(audio)
        found = encode(audio)
        if found.shape != codes.shape:
            raise ValueError(
                f"{folder / names[0]}: {n} samples give codes of shape {tuple(found.shape)}, not "
                f"{tuple(codes.shape)}"
            )
        n_codes, n_equal = n_codes + codes.numel(), n_equal + int((found == codes).sum())
        heard = decode(codes)
        difference = max(difference, float((heard - codec.decode(codes)).abs().max()))
    return n_codes, n_equal / n_codes, difference
