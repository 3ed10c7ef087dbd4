"""What is damaged: how healthy files of each kind are made, and how damaged ones are opened.

An opener returns a value, or raises what its users see. `open_damaged` says which it was.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import av
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
import torch

from fuzz.damage import damage
from makers.audio import RATE, audio_bytes, make_sine, write_with_ffmpeg
from makers.codecs import make_stft_codec, make_variable, save_codec
from makers.training import LEVELS, SIZE, make_model
from tokgen.audio.files import read_audio, read_duration
from tokgen.bitstream.files import decode_file, encode_file
from tokgen.bitstream.tgc.facts import describe_file
from tokgen.bitstream.tgc_files import compress_file, decompress_file
from tokgen.corpus.listed import open_corpus
from tokgen.modelling.masked import MaskedTransformer
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.lookup import load_codec

CLEAR = (ValueError, OSError, ModuleNotFoundError)  # what the command prints as one line
LONGEST = 600.0  # seconds of audio to accept


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        make: writes healthy examples into a folder, each a file or a folder.
        open: opens a file or folder; returns the reasons of rejections.
        share: part of a campaign's files.
    """

    make: Callable[[Path], None]
    open: Callable[[Path], list[str]]
    share: float


def make_audio(folder: Path) -> None:
    sine = make_sine(0.6)
    for file_format, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "MS_ADPCM"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_16"),
        ("W64", "PCM_16"),
        ("RF64", "PCM_16"),
    ):
        path = folder / f"{subtype}.{file_format.lower()}"
        path.write_bytes(audio_bytes(sine, subtype, file_format))
    for name, codec in (
        ("a.m4a", "aac"),
        ("o.mka", "libopus"),
        ("o.webm", "libopus"),
        ("p.mka", "pcm_s16le"),
        ("t.tta", "tta"),
    ):
        write_with_ffmpeg(folder / name, make_sine(0.6, 48000), 48000, codec)
    for channels in (2, 9):
        path = folder / f"{channels}.wav"
        sf.write(path, np.repeat(sine[:, None], channels, 1), RATE, subtype="PCM_24")


def open_audio(path: Path) -> list[str]:
    seconds = read_duration(path)
    assert seconds is None or seconds >= 0
    waveform, _ = read_audio(path, sample_rate=RATE, max_seconds=LONGEST)
    assert waveform.ndim == 2 and len(waveform) == 1 and waveform.isfinite().all()
    return []


def make_codes(folder: Path) -> None:
    sound = folder / "sound.wav"
    sound.write_bytes(audio_bytes(make_sine(1.0)))
    save_codec(make_stft_codec(), folder.parent / "codec")
    for levels in (1, 4):
        out = folder / f"{levels}.safetensors"
        encode_file(sound, folder.parent / "codec", out, n_codebooks=levels)
    sound.unlink()


def open_codes(path: Path) -> list[str]:
    decode_file(
        path,
        path.with_name("decoded.wav"),
        path.parents[1] / "codec",
        progress=False,
        overwrite=True,
    )
    return []


def make_tgc(folder: Path) -> None:
    sound = folder / "sound.wav"
    sound.write_bytes(audio_bytes(make_sine(1.0)))
    codec = save_codec(make_variable(None), folder.parent / "codec")
    for entropy in ("packed", "adaptive"):
        for level in (None, 0.7):
            out = folder / f"{entropy}_{level}.tgc"
            compress_file(sound, codec, out, entropy=entropy, level=level, block_seconds=0.3)
    sound.unlink()


def open_tgc(path: Path) -> list[str]:
    describe_file(path)
    codec = load_codec(path.parents[1] / "codec")
    decoded = path.with_name("decoded.wav")
    return decompress_file(path, decoded, codec, progress=False, overwrite=True).problems


def _audio_column(n: int) -> list[dict]:
    return [
        {"bytes": audio_bytes(make_sine(0.2 + 0.05 * i), "PCM_16", "FLAC"), "path": f"{i}.flac"}
        for i in range(n)
    ]


def make_parquet(folder: Path) -> None:
    n = 6
    columns = {
        "audio": _audio_column(n),
        "text": [f"text {i}" for i in range(n)],
        "speaker": ["ann", "ben"] * 3,
        "split": ["train", "test", "train"] * 2,
        "duration": [0.2 + 0.05 * i for i in range(n)],
    }
    pq.write_table(pa.table(columns), folder / "corpus.parquet")


def make_saved(folder: Path) -> None:
    for form in ("one", "dict"):
        rows = datasets.Dataset(
            pa.table({"audio": _audio_column(4), "text": list("abcd"), "duration": [0.3] * 4})
        )
        saved = datasets.DatasetDict({"train": rows}) if form == "dict" else rows
        saved.save_to_disk(folder / form)


def make_metadata(folder: Path) -> None:
    for kind in ("csv", "jsonl", "lj"):
        corpus = folder / kind
        sounds = corpus / "wavs" if kind == "lj" else corpus
        sounds.mkdir(parents=True)
        rows = []
        for i in range(4):
            (sounds / f"{i}.wav").write_bytes(audio_bytes(make_sine(0.2 + 0.05 * i)))
            rows.append(
                {"file_name": f"{i}.wav", "text": f"text {i}", "speaker": "a", "split": "x"}
            )
        if kind == "csv":
            with (corpus / "metadata.csv").open("w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        elif kind == "jsonl":
            (corpus / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        else:
            (corpus / "metadata.csv").write_text("".join(f"{i}|t {i}|t {i}\n" for i in range(4)))


def open_speech(path: Path) -> list[str]:
    corpus = open_corpus(path)
    rejected = list(corpus.rejections)
    for utterance in corpus.utterances(RATE, rejected=rejected):
        assert utterance.waveform.isfinite().all()
    return [str(rejection) for rejection in rejected]


def make_models(folder: Path) -> None:
    save_codec(make_stft_codec(), folder / "codec")
    make_model().save_pretrained(folder / "masked")


@torch.no_grad()
def open_model(path: Path) -> list[str]:
    if path.name == "masked":
        model = MaskedTransformer.from_pretrained(path)
        tokens = torch.zeros(1, model.n_codebooks, 7, dtype=torch.int64)
        assert model.n_codebooks == LEVELS and model.codebook_size == SIZE
        model(tokens)
        return []
    codec = load_codec(path)
    codes = codec.encode(torch.from_numpy(make_sine(0.5))[None, None])
    assert codes.min() >= 0 and codes.max() < codec.spec.codebook_size
    codec.decode(codes)
    return []


def make_token_datasets(folder: Path) -> None:
    codec = save_codec(make_stft_codec(), folder.parent / "codec")
    speech = folder.parent / "speech"
    speech.mkdir()
    for i in range(5):
        (speech / f"{i}.wav").write_bytes(audio_bytes(make_sine(0.3 + 0.1 * i)))
    for form in ("parquet", "arrow"):
        tokenize_corpus(speech, codec, folder / form, format=form, workers=1, progress=False)
    shutil.rmtree(speech)


def open_tokens(path: Path) -> list[str]:
    tokens = load_tokens(path)
    size = tokens.provenance.codebook_size
    for split, rows in tokens.splits.items():
        for i in range(len(rows)):
            codes = tokens.codes(split, i)
            assert codes.min() >= 0 and codes.max() < size
    return []


TARGETS = {
    "audio": Target(make_audio, open_audio, 0.5),
    "codes files": Target(make_codes, open_codes, 0.1),
    "compressed files": Target(make_tgc, open_tgc, 0.1),
    "Parquet": Target(make_parquet, open_speech, 0.1),
    "saved datasets": Target(make_saved, open_speech, 0.1),
    "metadata": Target(make_metadata, open_speech, 0.1),
    "model folders": Target(make_models, open_model, 0.1),
    "token datasets": Target(make_token_datasets, open_tokens, 0.1),
}


def damaged_copy(example: Path, scratch: Path, random: Random) -> tuple[Path, str]:
    """Copy an example and damage one file of the copy.

    Returns:
        the copy, and the name of the damaged file.
    """
    copy = scratch / example.name
    if example.is_dir():
        shutil.copytree(example, copy)
        files = sorted(p for p in copy.rglob("*") if p.is_file() and p.suffix != ".md")
        damaged = random.choice(files)
    else:
        shutil.copy(example, copy)
        damaged = copy
    damaged.write_bytes(damage(damaged.name, damaged.read_bytes(), random))
    return copy, damaged.name


def open_damaged(target: Target, path: Path, names: tuple[str, ...]) -> tuple[str, str]:
    """Open a damaged file.

    Args:
        names: one of them must be in the message of an error.
    Returns:
        "value", "rejected", "error" or "FAULT", and what was said.
    """
    try:
        rejected = target.open(path)
    except CLEAR as error:
        said = " ".join(str(error).split())
        if isinstance(error, UnicodeError | json.JSONDecodeError):
            return "FAULT", f"{type(error).__name__}: {said}"
        if not any(name in said for name in names):
            return "FAULT", f"names no file: {type(error).__name__}: {said}"
        return ("error", said) if len(said) < 1500 else ("FAULT", f"long: {said[:300]}")
    except av.FFmpegError as error:
        return "FAULT", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "FAULT", f"{type(error).__name__}: {error}"
    if not rejected:
        return "value", ""
    odd = [reason for reason in rejected if "\x1b" in reason]
    return ("FAULT", f"raw escape: {odd[0]!r}") if odd else ("rejected", rejected[0])
