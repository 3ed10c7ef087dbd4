"""Trials of published codecs: encode and decode a clip, compare with the table, keep the result.

    codec = next(c for c in read_published() if c.id == "descript/dac_16khz")
    trial = try_codec(codec.id, waveform, 16000, sample_rate=codec.sample_rate, kbps=codec.kbps)
    record_trial(codec.id, trial)  # the column "run" of `tokgen codecs`

Random weights fail a trial: the decoded clip must be closer to the original than the original
played backwards, which has the same sounds in other places.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from tokgen import __version__
from tokgen.audio.resampling import resample
from tokgen.codec.base import Codec
from tokgen.nn.spectral_losses import MultiScaleMel
from tokgen.runs.folder import write_json
from tokgen.zoo.lookup import load_roundtrip

__all__ = ["TRIALS", "Trial", "read_trials", "record_trial", "try_codec"]

TRIALS = Path(__file__).with_name("published_trials.json")


@dataclass(frozen=True)
class Trial:
    """One run of a published codec.

    Attributes:
        machine: system, processor and device.
        revision: commit of the weights; "" for a folder or for MP3 and Opus.
        library: library of the network and its version.
        tokgen, torch: versions.
        mel: distance of mel spectra between the clip and the decoded clip.
        mel_backwards: the same between the clip and the clip played backwards.
        problem: what is wrong; "" if nothing is.
    """

    machine: str
    revision: str
    library: str
    tokgen: str
    torch: str
    mel: float
    mel_backwards: float
    problem: str = ""

    @property
    def brief(self) -> str:
        """The trial in a few words."""
        return f"{self.machine}: failed ({self.problem})" if self.problem else self.machine


@torch.no_grad()
def try_codec(
    name: str,
    waveform: Tensor,
    rate: int,
    *,
    sample_rate: int,
    hop_length: int,
    kbps: float,
    device: str = "cpu",
) -> Trial:
    """Load a codec, encode and decode a clip, and compare the codec's numbers with the expected.

    Args:
        name: as for `load_roundtrip`.
        waveform: the clip [1, 1, N].
        rate: its rate in Hz.
        sample_rate, hop_length, kbps: what the codec's spec must say; kbps to 1 %.
        device: as for `load_roundtrip`.
    Raises:
        FileNotFoundError, ValueError: as `load_roundtrip`.
    """
    codec = load_roundtrip(name, device=device)
    s = codec.spec
    found = (s.sample_rate, s.hop_length, round(s.bitrate / 1000, 3))
    problem, expected = "", (sample_rate, hop_length, kbps)
    if found[:2] != expected[:2] or abs(found[2] - kbps) > 0.01 * kbps:
        problem = f"rate, hop and kbps are {found}, the table has {expected}"
    audio = torch.as_tensor(resample(waveform, rate, s.sample_rate))
    if isinstance(codec, Codec):
        encoded = codec.encode_with_side(audio)
        decoded = codec.decode(encoded.codes, audio.shape[-1], encoded.side)
    else:
        decoded = codec.roundtrip(audio)
    decoded = decoded.cpu().float()
    distance = MultiScaleMel(s.sample_rate)
    mel, backwards = (float(distance(x, audio)) for x in (decoded, audio.flip(-1)))
    if not mel < backwards:
        problem = problem or f"decoded audio is no closer than reversed: {mel:.3g}"
    where = f"{platform.system()} {platform.machine()} {torch.device(device).type}"
    revision = getattr(s, "revision", None) or ""
    versions = {"tokgen": __version__, "torch": torch.__version__}
    about = {"library": _versioned(s.library), "mel": mel, "mel_backwards": backwards}
    return Trial(where, revision, **about, **versions, problem=problem)  # type: ignore[arg-type]


def record_trial(name: str, trial: Trial, path: Path = TRIALS) -> None:
    """Keep a trial in a file, in place of an earlier one of the same codec and machine."""
    found = read_trials(path)
    kept = [t for t in found.get(name, []) if t.machine != trial.machine]
    found[name] = [*kept, trial]
    write_json(path, {k: [asdict(t) for t in v] for k, v in sorted(found.items())})


def read_trials(path: Path = TRIALS) -> dict[str, list[Trial]]:
    """Return the trials of each codec, the newest last; {} without the file.

    Raises:
        ValueError: the file cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: [Trial(**values) for values in found] for name, found in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _versioned(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except (PackageNotFoundError, ValueError):
        return library
