"""Compress and decompress several files and folders, in several processes.

done = compress_files(["speech/", "a.wav"], "speech-16k", "compressed/", jobs=4)
done.results[0].n_bytes
done.failures  # name and reason of each file that failed
decompress_files(["compressed/"], "audio/")
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch

from tokgen.audio.files import AUDIO_SUFFIXES
from tokgen.bitstream.batch import CodedFiles, each_file
from tokgen.bitstream.compressed import CompressedWriter
from tokgen.bitstream.entropy_models import AUTO, choose_model
from tokgen.bitstream.named_codecs import NamedCodecs
from tokgen.bitstream.outputs import AUDIO, TGC, check_outputs, plan_tree
from tokgen.bitstream.settings import Compression, with_levels
from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc_files import compress_file, decompress_file
from tokgen.codec.base import Codec
from tokgen.codec.stable.settings import StableDecoding
from tokgen.zoo.lookup import as_codec

__all__ = ["compress_files", "decompress_files"]


def compress_files(
    files: Sequence[str | Path],
    codec: str | Path | Codec,
    out: str | Path,
    *,
    jobs: int = 1,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    **settings: Unpack[Compression],
) -> CodedFiles:
    """Compress audio files, and those in folders, into a folder.

    Args:
        files: audio files and folders. Those in a folder keep their place, see `plan_tree`.
        codec: the codec, or its name as in `load_codec`.
        out: folder for the .tgc files; it is created.
        jobs: processes that work at a time, on a CPU.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace existing files.
        **settings: n_codebooks, level, bitrate, beam, entropy and block_seconds of
            `CompressedWriter`.
    Returns:
        a `CompressedFile` for each file, and the files that failed.
    Raises:
        FileExistsError: an output exists, and `overwrite` is False. Nothing is compressed.
        FileNotFoundError: no such codec, or no audio in the folders.
        OSError: the disk is full, `out` cannot be written, or a process died.
        ValueError: two files would be written to one, or a setting is wrong.
    """
    inputs, outputs = plan_tree(files, out, TGC, AUDIO_SUFFIXES)
    check_outputs(outputs, inputs, overwrite=overwrite, suffixes=[TGC])
    codec = as_codec(codec, device=device)
    _check_jobs(jobs, codec.device)
    chosen = settings.get("n_codebooks"), settings.get("level"), settings.get("bitrate")
    rated, _ = with_levels(codec, *chosen)
    mode, model = choose_model(rated, settings.get("entropy", AUTO))
    settings["entropy"] = mode if model is None else model  # read once for all files
    CompressedWriter(io.BytesIO(), codec, **settings)  # checks the settings
    one = partial(compress_file, codec=codec, overwrite=overwrite, **settings)
    return each_file(one, inputs, outputs, progress=progress, jobs=jobs)


def decompress_files(
    files: Sequence[str | Path],
    out: str | Path,
    codec: str | Path | Codec | None = None,
    *,
    format: str = "wav",
    model: EntropyModel | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    stable: bool | StableDecoding = False,
    jobs: int = 1,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
) -> CodedFiles:
    """Decompress .tgc files, and those in folders, into a folder.

    Args:
        files: .tgc files and folders, of one codec or of several.
        out: folder for the audio files; it is created.
        codec: the codec that made the codes, or its name as in `load_codec`; None is the zoo's
            codec that each file names.
        format: audio format to write.
        model, start, seconds, stable: as for `decompress_file`.
        jobs, device, progress, overwrite: as for `compress_files`.
    Returns:
        a `DecodedFile` for each file, and the files that failed.
    Raises:
        FileExistsError: an output exists, and `overwrite` is False. Nothing is decompressed.
        FileNotFoundError: no such codec, or no .tgc files in the folders.
        OSError: the disk is full, `out` cannot be written, or a process died.
        ValueError: two files would be written to one, or an unknown format.
    """
    inputs, outputs = plan_tree(files, out, f".{format}", [TGC])
    check_outputs(outputs, inputs, overwrite=overwrite, suffixes=AUDIO)
    codecs = NamedCodecs(codec, "cpu" if jobs > 1 and str(device) == "auto" else device)
    _check_jobs(jobs, codecs.device)
    more: dict[str, Any] = {"model": model, "start": start, "seconds": seconds}
    more["stable"] = stable
    one = partial(decompress_file, codec=codecs, overwrite=overwrite, **more)
    return each_file(one, inputs, outputs, progress=progress, jobs=jobs)


def _check_jobs(jobs: int, device: str | torch.device) -> None:
    kind = torch.device(device).type if str(device) != "auto" else "cpu"
    if jobs < 1 or (jobs > 1 and kind != "cpu"):
        raise ValueError(
            f"jobs is {jobs} on {device}: must be at least 1, and more work on a CPU only"
        )
