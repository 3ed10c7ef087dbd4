"""Token datasets, codecs that end their process, and tokenizing in other processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from makers.audio import RATE
from makers.codecs import make_stft_codec
from tokgen.cli.main import main
from tokgen.codec.base import Codec
from tokgen.tokens.columns import token_features
from tokgen.tokens.dataset import load_tokens
from tokgen.zoo.stft import StftCodec

LENGTHS = [5, 40, 12, 1, 27]  # frames of the utterances in `token_rows`


def rows_of(out: str | Path) -> dict[str, list[dict]]:
    """Return every row of a token dataset, by split."""
    return {
        split: [{k: np.asarray(v).tolist() for k, v in row.items()} for row in data]
        for split, data in load_tokens(out).splits.items()
    }


def token_rows(mfcc: bool = True) -> Dataset:
    """Return utterances of `LENGTHS` frames, with two levels and three features.

    Frame t of utterance i has the codes 100 * i + t and t, and the features t, -t and i.
    """
    rows = []
    for i, n in enumerate(LENGTHS):
        frame = np.arange(n)
        row = {
            "id": str(i),
            "codes": np.stack([100 * i + frame, frame], 1).astype(np.uint16),
            "n_samples": 320 * n,
            "text": None,
            "speaker": None,
        }
        if mfcc:
            row["mfcc"] = np.stack([frame, -frame, np.full(n, i)], 1).astype(np.float16)
        rows.append(row)
    return Dataset.from_list(rows, features=token_features(2, {"mfcc": 3} if mfcc else {}))


class DyingCodec(StftCodec):
    """Kills its process when it encodes long audio, as often as there are files to delete.

    Args:
        deaths: folder of the files.
        n: number of files.
        longest: samples that it encodes without dying.
    """

    def __init__(self, deaths: Path, n: int, longest: int = RATE) -> None:
        codec = make_stft_codec()
        super().__init__(codec.model, codec.spec)
        self.deaths, self.longest = deaths, longest
        deaths.mkdir()
        for i in range(n):
            (deaths / str(i)).touch()

    def encode_batch_with_side(self, waveforms):
        if max(w.shape[-1] for w in waveforms) > self.longest:
            for file in self.deaths.iterdir():
                with suppress(FileNotFoundError):  # another worker deleted it
                    file.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_batch_with_side(waveforms)


class HangingCodec(StftCodec):
    """Never encodes. Writes the id of its process as the name of a file."""

    def __init__(self, started: Path) -> None:
        codec = make_stft_codec()
        super().__init__(codec.model, codec.spec)
        self.started = started
        started.mkdir()

    def encode_batch_with_side(self, waveforms):
        (self.started / str(os.getpid())).touch()
        while True:
            signal.pause()


def tokenize_in_process(
    flags: list[object], printed: Path, environment: Mapping[str, str], codec: Codec | None = None
) -> None:
    """Run `tokgen tokenize` as a process' target.

    Args:
        flags: of the command.
        printed: file for its output.
        environment: variables to add.
        codec: used in place of the one that the flags name.
    """
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    if codec is not None:
        import tokgen.zoo.lookup

        tokgen.zoo.lookup.load_network = lambda *args, **kwargs: codec
    sys.exit(main(["tokenize", *map(str, flags)]))
