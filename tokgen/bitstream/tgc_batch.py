"""Compress and decompress several files and folders, in several processes.

done = compress_files(["speech/", "a.wav"], "speech-16k", "compressed/", jobs=4)
done.results[0].n_bytes
done.failures  # name and reason of each file that failed
decompress_files(["compressed/"], "audio/")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tokgen.audio.files import AUDIO_SUFFIXES
from tokgen.bitstream.batch import CodedFiles, each_file
from tokgen.bitstream.compressed import BLOCK_SECONDS
from tokgen.bitstream.decompressing import codec_of
from tokgen.bitstream.entropy_models import AUTO, choose_model
from tokgen.bitstream.outputs import AUDIO, TGC, check_outputs, plan_tree
from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.records import first_header
from tokgen.bitstream.tgc_files import compress_file, decompress_file
from tokgen.codec.base import Codec
from tokgen.results import Result
from tokgen.zoo.lookup import as_codec

__all__ = ["compress_files", "decompress_files"]


def compress_files(
    files: Sequence[str | Path],
    codec: str | Path | Codec,
    out: str | Path,
    *,
    n_codebooks: int | None = None,
    bitrate: float | None = None,
    beam: int = 1,
    entropy: str | Path | EntropyModel = AUTO,
    block_seconds: float = BLOCK_SECONDS,
    jobs: int = 1,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
) -> CodedFiles:
    """Compress audio files, and those in folders, into a folder.

    Args:
        files: audio files and folders. Those in a folder keep their place, see `plan_tree`.
        codec: the codec, or its name as in `load_codec`.
        out: folder for the .tgc files; it is created.
        n_codebooks, bitrate, beam, entropy, block_seconds: as for `compress_file`.
        jobs: processes that work at a time, on a CPU.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace existing files.
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
    codec = codec if beam == 1 else codec.with_beam(beam)
    mode, model = choose_model(codec, entropy)
    chosen, alone = mode if model is None else model, progress and len(inputs) == 1

    def one(file: str | Path, path: Path) -> Result:
        return compress_file(
            file,
            codec,
            path,
            n_codebooks=n_codebooks,
            bitrate=bitrate,
            entropy=chosen,
            block_seconds=block_seconds,
            progress=alone,
            overwrite=overwrite,
        )

    return each_file(one, inputs, outputs, progress=progress and not alone, jobs=jobs)


def decompress_files(
    files: Sequence[str | Path],
    out: str | Path,
    codec: str | Path | Codec | None = None,
    *,
    format: str = "wav",
    model: EntropyModel | None = None,
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
        model: as for `CompressedReader`.
        jobs, device, progress, overwrite: as for `compress_files`.
    Returns:
        a `DecompressedFile` for each file, and the files that failed.
    Raises:
        FileExistsError: an output exists, and `overwrite` is False. Nothing is decompressed.
        FileNotFoundError: no such codec, or no .tgc files in the folders.
        OSError: the disk is full, `out` cannot be written, or a process died.
        ValueError: two files would be written to one, or an unknown format.
    """
    inputs, outputs = plan_tree(files, out, f".{format}", [TGC])
    check_outputs(outputs, inputs, overwrite=overwrite, suffixes=AUDIO)
    given = None if codec is None else as_codec(codec, device=device)
    _check_jobs(jobs, device if given is None else given.device)
    loaded: dict[str, Codec] = {}
    alone = progress and len(inputs) == 1

    def one(file: str | Path, path: Path) -> Result:
        used = given
        if used is None:
            header = first_header(file)
            used = loaded.get(header.codec) or codec_of(header, "cpu" if jobs > 1 else device)
            loaded[header.codec] = used
        return decompress_file(file, path, used, model=model, progress=alone, overwrite=overwrite)

    return each_file(one, inputs, outputs, progress=progress and not alone, jobs=jobs)


def _check_jobs(jobs: int, device: str | torch.device) -> None:
    kind = torch.device(device).type if str(device) != "auto" else "cpu"
    if jobs < 1 or (jobs > 1 and kind != "cpu"):
        raise ValueError(
            f"jobs is {jobs} on {device}: must be at least 1, and more work on a CPU only"
        )
