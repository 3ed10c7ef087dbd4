"""A tiny deterministic codec and a tiny corpus, so that the whole pipeline runs in seconds."""

from __future__ import annotations

import csv
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokgen.audio import write_audio
from tokgen.codec import Codec, CodecSpec, Encoded, Side, fit_length, hash_weights
from tokgen.quantizers.residual import Quantized, ResidualQuantizer
from tokgen.stft_codec import StftCodec, StftCodecModel

# A shell that starts the tests in the background has children ignore Ctrl-C, which some test.
signal.signal(signal.SIGINT, signal.default_int_handler)

RATE = 16000

torch.set_num_threads(1)  # tiny networks: more threads would only wait for each other


def make_stft_codec(seed: int = 0, name: str = "tiny", **settings: int) -> StftCodec:
    """A random StftCodec of some 30k parameters: 16 kHz, hop 320, 4 levels of 60 entries."""
    small = {
        "sample_rate": RATE,
        "hop_length": 320,
        "n_fft": 640,
        "width": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "expansion": 2,
        "latent_dim": 16,
        "n_codebooks": 4,
        "codebook_size": 60,
        "codebook_dim": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = StftCodecModel(**{**small, **settings})
    return StftCodec.from_model(model, name, licence="CC0-1.0")


def save_codec(codec: StftCodec, folder: Path, summary: str = "for tests") -> Path:
    """Save a codec as a zoo has it."""
    codec.model.save_pretrained(folder)
    (folder / "codec.toml").write_text(
        'library = "tokgen"\nclass = "StftCodecModel"\n'
        f'licence = "{codec.spec.licence}"\nsummary = "{summary}"\n'
    )
    return folder


class BlockModel(nn.Module):
    """Frames of samples as latents, scaled by one number before the quantizer and one after."""

    def __init__(self, hop_length: int, codebook_size: int, encoder: float, decoder: float) -> None:
        super().__init__()
        self.encoder = nn.Parameter(torch.tensor(encoder))
        self.decoder = nn.Parameter(torch.tensor(decoder))
        self.quantizer = ResidualQuantizer(
            latent_dim=hop_length,
            n_codebooks=1,
            codebook_size=codebook_size,
            codebook_dim=hop_length,
            dropout=0.5,
        )
        for projection in (self.quantizer.levels[0].in_proj, self.quantizer.levels[0].out_proj):
            nn.init.eye_(projection.weight)
            nn.init.zeros_(projection.bias)


class BlockCodec(Codec):
    """f(f(x)) = f(x) exactly where decoder * encoder = 1: the row that is nearest by angle."""

    model: BlockModel

    def __init__(self, encoder: float = 2.0, decoder: float = 0.5, name: str = "block") -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = BlockModel(4, 64, encoder, decoder).eval()
        self.spec = CodecSpec(name, RATE, 4, 1, 64, hash_weights(self.model))

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        return Encoded(self.quantize(self.encode_latents(waveform)))

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.decode_latents(self.dequantize(codes))

    def encode_latents(self, waveform: Tensor) -> Tensor:
        n_frames = self.spec.n_frames(waveform.shape[-1])
        padded = fit_length(waveform, n_frames * self.spec.hop_length)
        return self.model.encoder * padded[:, 0].unflatten(-1, (n_frames, -1)).mT

    def project(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents)[1]

    def quantize(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents)[0]

    def codebook_rows(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.codebook_rows(codes)

    def dequantize(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.decode(codes)

    def quantize_through(self, latents: Tensor) -> Quantized:
        return self.model.quantizer(latents)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        return self.model.decoder * quantized.mT.flatten(1)[:, None]


def make_tone(seconds: float, seed: int, sample_rate: int = RATE) -> Tensor:
    """Something like a voice [1, N]: wavering harmonics in syllables, over a little noise."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 100 + 80 * torch.rand(1, generator=generator)
    phase = 2 * math.pi * (pitch * t + 1.5 * torch.sin(2 * math.pi * 3 * t))
    weights = torch.rand(12, generator=generator) / torch.arange(1, 13)
    voice = sum(w * torch.sin((k + 1) * phase) for k, w in enumerate(weights))
    syllables = 0.55 + 0.45 * torch.sin(2 * math.pi * 4 * t + seed)
    noise = 0.01 * torch.randn(len(t), generator=generator)
    return (0.3 * voice * syllables / weights.sum() + noise)[None]


@pytest.fixture(scope="session")
def tiny_codec() -> StftCodec:
    return make_stft_codec()


@pytest.fixture(scope="session")
def tiny_codec_folder(tiny_codec: StftCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_codec` as a folder named "tiny" in a zoo of its own."""
    return save_codec(tiny_codec, tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture(scope="session")
def save_codec_to() -> Callable[..., Path]:
    """`save_codec(codec, folder)` for tests."""
    return save_codec


CLIPS = [  # file name, seconds, speaker, split, text
    ("a one.wav", 1.2, "ann", "train", "one two three"),
    ("b.wav", 0.35, "ann", "train", "yes"),
    ("c.wav", 2.1, "ben", "train", "the quick brown fox jumps"),
    ("d.wav", 0.8, "ben", "validation", "hello there"),
    ("é.wav", 1.61, "ann", "train", "agent 47, please hold"),
    ("f.wav", 0.5, "ben", "train", "no"),
    ("g.wav", 1.0, "ann", "test", "thank you"),
    ("h.wav", 1.9, "ben", "test", "your call may be recorded"),
    ("i.wav", 0.7, "ann", "validation", "goodbye now"),
    ("j.wav", 1.33, "ben", "train", "please try again later"),
]


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten wav files, 11.5 s, with metadata.csv; leave it as it is."""
    folder = tmp_path_factory.mktemp("corpora") / "tiny corpus"
    for seed, (name, seconds, *_) in enumerate(CLIPS):
        write_audio(folder / name, make_tone(seconds, seed), RATE)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "text", "speaker", "split"])
        table.writerows((name, text, who, split) for name, _, who, split, text in CLIPS)
    return folder
