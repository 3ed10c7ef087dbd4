"""Descriptions of codecs: `CodecList` and `CodecFacts`, what `tokgen codecs` and `info` print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokgen.codec.base import Codec
from tokgen.codec.continuous import ContinuousCodec, ContinuousSpec
from tokgen.codec.spec import CodecSpec
from tokgen.results import Grid, Result

__all__ = ["CodecCard", "CodecFacts", "CodecList", "describe_codec", "numbers"]


@dataclass(frozen=True)
class CodecCard:
    """A codec's description, read without loading the weights.

    Attributes:
        spec: the codec's numbers, with an empty `weight_hash`.
        class_name: class of the network.
    """

    name: str
    folder: Path
    spec: CodecSpec | ContinuousSpec
    class_name: str
    summary: str


class CodecList(list[CodecCard], Result):
    """Cards of codecs: a list, and a result.

    Args:
        cards: cards in order.
        empty: text to show if there are no cards.
    """

    def __init__(self, cards: Iterable[CodecCard] = (), empty: str = "no codecs") -> None:
        super().__init__(cards)
        self.empty = empty

    def parts(self) -> list[Grid | str]:
        if not self:
            return [self.empty]
        titles = ("name", "rate", "hop", "frames/s", "codebooks", "kbps", "latency")
        rows = [(*titles, "licence", "summary")]
        for card in self:
            s = card.spec
            numbers = (f"{s.sample_rate}", f"{s.hop_length}", f"{s.frame_rate:g}")
            codebooks, latency = "", ""
            if isinstance(s, ContinuousSpec):
                codebooks = f"{s.latent_dim} latents"
            else:
                codebooks = f"{s.n_codebooks} x {s.codebook_size}"
                latency = "" if s.latency_ms is None else f"{s.latency_ms:.3g} ms"
            kbps = f"{s.bitrate / 1000:.2f}"
            rows.append((card.name, *numbers, codebooks, kbps, latency, s.licence, card.summary))
        return [Grid(rows)]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each codec, without the hash of the weights: they were not read."""
        return [
            {k: v for k, v in numbers(card.spec).items() if k != "weight_hash"}
            | {"name": card.name, "folder": str(card.folder), "summary": card.summary}
            for card in self
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return {"codecs": records}."""
        return {"codecs": self.records()}


@dataclass(frozen=True)
class CodecFacts(Result):
    """The numbers of a codec and of its network.

    Attributes:
        spec: numbers of the codec.
        network: class of the network.
        n_parameters: number of its parameters.
        side_names: names of the side information that the codec writes beside its codes.
        variable: whether the codec can give each frame a number of levels of its own.
        mean_kbps: mean bitrate that a variable codec meets; None if none was chosen.
        beam: paths of the beam search that the codec was saved with; 1 is greedy.
    """

    spec: CodecSpec | ContinuousSpec
    network: str
    n_parameters: int
    side_names: tuple[str, ...] = ()
    variable: bool = False
    mean_kbps: float | None = None
    beam: int = 1

    def parts(self) -> list[Grid | str]:
        s = self.spec
        facts = {
            "name": s.name,
            "network": f"{self.network} of {s.library}",
            "parameters": f"{self.n_parameters / 1e6:.2f}M",
            "sample rate": f"{s.sample_rate} Hz",
            "hop length": f"{s.hop_length} samples, {s.frame_rate:g} frames a second",
        }
        if isinstance(s, ContinuousSpec):
            facts["latents"] = f"{s.latent_dim} per frame, without a quantizer"
            facts["bitrate"] = f"{s.bitrate / 1000:.2f} kbps as float16"
        else:
            facts["codebooks"] = f"{s.n_codebooks} of {s.codebook_size} entries"
            facts["bitrate"] = f"{s.bitrate / 1000:.2f} kbps"
            facts["latency"] = "not causal" if s.latency_ms is None else f"{s.latency_ms:.3g} ms"
        facts |= {
            "licence": s.licence or "not stated",
            "revision": s.revision or "local",
            "weights": s.weight_hash,
            "encoder": s.encoder_hash or s.weight_hash,
        }
        if self.variable:
            facts["bitrate"] += ", or a variable one below"
        if self.mean_kbps is not None:
            facts["bitrate"] = f"{self.mean_kbps:g} kbps on average, variable"
        if self.beam > 1:
            facts["search"] = f"beam of {self.beam} paths"
        if self.side_names:
            facts["side values"] = ", ".join(self.side_names)
        return [f"{key:12} {value}" for key, value in facts.items()]

    def records(self) -> list[dict[str, Any]]:
        return [self.to_dict() | {"side_names": ", ".join(self.side_names)}]

    def to_dict(self) -> dict[str, Any]:
        about: dict[str, Any] = {"network": self.network, "n_parameters": self.n_parameters}
        if self.variable:
            about |= {"variable": True, "mean_kbps": self.mean_kbps}
        if self.beam > 1:
            about["beam"] = self.beam
        return numbers(self.spec) | about | {"side_names": list(self.side_names)}


def describe_codec(codec: Codec | ContinuousCodec) -> CodecFacts:
    """Return the numbers of a codec and of its network."""
    n_parameters = sum(p.numel() for p in codec.model.parameters())
    name = type(codec.model).__name__
    if isinstance(codec, ContinuousCodec):
        return CodecFacts(codec.spec, name, n_parameters)
    mean_kbps = None if codec.rate is None else codec.rate.bitrate
    about = tuple(codec.side_names), codec.variable, mean_kbps
    beam = 1 if codec.search is None else codec.search.beam
    return CodecFacts(codec.spec, name, n_parameters, *about, beam=beam)


def numbers(spec: CodecSpec | ContinuousSpec) -> dict[str, Any]:
    """Return `CodecSpec.as_dict()` with frame rate, bitrate and latency."""
    more: dict[str, Any] = {"frame_rate": spec.frame_rate, "bitrate": spec.bitrate}
    if isinstance(spec, CodecSpec):
        more["latency_ms"] = spec.latency_ms
    return spec.as_dict() | more
