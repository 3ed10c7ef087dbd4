"""A tiny codec and a tiny corpus, so that the whole pipeline runs in seconds."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

# More threads only wait for each other in tiny networks. Also in the processes that tests start,
# so before torch reads it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from makers.audio import RATE, make_tone
from makers.codecs import make_stft_codec, save_codec
from makers.corpora import CLIPS
from tokgen.audio.files import write_audio
from tokgen.zoo.stft import StftCodec

# A shell makes background processes ignore Ctrl-C, which some tests need.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_codec() -> StftCodec:
    return make_stft_codec()


@pytest.fixture(scope="session")
def tiny_codec_folder(tiny_codec: StftCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_codec` saved as the folder "tiny" of its own zoo."""
    return save_codec(tiny_codec, tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten wav files, 11.5 s in all, with metadata.csv. Tests must not change it."""
    folder = tmp_path_factory.mktemp("corpora") / "tiny corpus"
    for seed, (name, seconds, *_) in enumerate(CLIPS):
        write_audio(folder / name, make_tone(seconds, seed), RATE)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "text", "speaker", "split"])
        table.writerows((name, text, who, split) for name, _, who, split, text in CLIPS)
    return folder
