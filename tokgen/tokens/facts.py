"""Facts about token and latent datasets, which `tokgen info` prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokgen.results import Grid, Result
from tokgen.tokens.provenance import Provenance, describe_rate

__all__ = ["DatasetFacts", "SplitFacts"]


@dataclass
class SplitFacts:
    """Facts about one split of a dataset.

    Attributes:
        split: its name.
        n_clips: utterances.
        n_samples: length of their audio in samples.
        n_frames: frames.
        shortest, longest: shortest and longest utterance in samples; 0 without utterances.
        n_texts: utterances with a transcript.
        speakers: names of their speakers.
    """

    split: str
    n_clips: int = 0
    n_samples: int = 0
    n_frames: int = 0
    shortest: int = 0
    longest: int = 0
    n_texts: int = 0
    speakers: set[str] = field(default_factory=set)

    def add(self, rows: pa.Table, provenance: Provenance, source: str) -> None:
        """Count rows.

        Raises:
            ValueError: a length is missing or below 1.
        """
        if not len(rows):
            return
        lengths = rows["n_samples"]
        whole = pa.types.is_integer(lengths.type) and not lengths.null_count
        if not whole or pc.min(lengths).as_py() < 1:
            raise ValueError(
                f"{source}: a value of n_samples is no integer above 0: restore the file from a "
                "copy, or make the dataset again with `tokgen tokenize`"
            )
        samples = lengths.to_numpy()
        shortest, longest = int(samples.min()), int(samples.max())
        self.shortest = min(self.shortest, shortest) if self.n_clips else shortest
        self.longest = max(self.longest, longest)
        self.n_clips += len(rows)
        self.n_samples += int(samples.sum())
        frames: np.ndarray = np.asarray(provenance.codec_spec.n_frames(samples))
        self.n_frames += int(frames.sum())
        if "text" in rows.column_names:
            self.n_texts += sum(bool(t and t.strip()) for t in rows["text"].to_pylist())
        if "speaker" in rows.column_names:
            self.speakers.update(s for s in rows["speaker"].unique().to_pylist() if s)


@dataclass(frozen=True)
class DatasetFacts(Result):
    """Facts about a token or latent dataset.

    Attributes:
        source: folder, URL, hub id or file.
        provenance: codec, corpus and settings behind the rows.
        splits: facts about each split.
        n_files: files that hold the rows.
        n_bytes: their size.
        format: "parquet" or "arrow".
        packed: the codes are stored as packed bits.
        kbps: mean bitrate of the codes or latents without entropy coding, with the bits of a
            variable depth. None for a variable bitrate, unless the dataset is a folder on this
            machine.
        mean_depth: levels per frame of a variable bitrate; None as `kbps`, and if all frames have
            `n_codebooks` levels.
        n_rejected: entries of the corpus that were left out; None if it is not known.
    """

    source: str
    provenance: Provenance
    splits: list[SplitFacts]
    n_files: int
    n_bytes: int
    format: str
    packed: bool = False
    kbps: float | None = None
    mean_depth: float | None = None
    n_rejected: int | None = None

    def parts(self) -> list[Grid | str]:
        about, spec = self.provenance, self.provenance.codec_spec
        sizes = about.conditioning_sizes
        conditioning = [f"{name}, {size} values per frame" for name, size in sizes.items()]
        facts = {
            "source": self.source,
            "content": f"{about.content}, made by tokgen {about.tokgen_version}",
            "codec": spec.name + (f", revision {spec.revision}" if spec.revision else ""),
            "weights": spec.weight_hash,
            "encoder": spec.encoder_hash or spec.weight_hash,
            "licence": spec.licence or "not stated",
            "sample rate": f"{about.sample_rate} Hz",
            "hop length": f"{about.hop_length} samples, {spec.frame_rate:g} frames a second",
        }
        if about.latent_dim:
            facts["latents"] = f"{about.latent_dim} per frame, float16"
        else:
            facts["levels"] = f"{about.n_codebooks} of {about.spec.n_codebooks}, {self._sizes()}"
        if self.kbps is not None:
            facts["bitrate"] = f"{self.kbps:.2f} kbps"
        if about.rate is not None:
            facts["variable"] = describe_rate(about.rate)
            if self.mean_depth is not None:
                facts["bitrate"] += " on average, with the bits of the depth"
                facts["depth"] = f"{self.mean_depth:.2f} levels per frame on average"
        if about.channels > 1:
            facts["channels"] = str(about.channels)
        if about.beam > 1:
            facts["search"] = f"beam of {about.beam} paths"
        if about.side_names:
            facts["side values"] = ", ".join(about.side_names)
        packed = ", codes in packed bits" if self.packed else ""
        files = f"{self.n_files} {self.format.capitalize()} file{'s' * (self.n_files != 1)}"
        facts |= {
            "conditioning": conditioning[0] if conditioning else "none",
            "precision": about.precision,
            "corpus": about.corpus,
            "fingerprint": about.corpus_fingerprint,
            "files": f"{files}, {self.n_bytes / 1e6:.2f} MB{packed}",
        }
        if self.n_rejected is not None:
            facts["rejected"] = f"{self.n_rejected} entries of the corpus"
        return [*(f"{key:12} {value}" for key, value in facts.items()), "", Grid(self._rows())]

    def _sizes(self) -> str:
        sizes = self.provenance.spec.sizes[: self.provenance.n_codebooks]
        if len(set(sizes)) == 1:
            return f"{sizes[0]} entries each"
        return f"{', '.join(map(str, sizes))} entries"

    def _rows(self) -> list[tuple[str, ...]]:
        """Return the table of the splits."""
        rate = self.provenance.sample_rate
        rows: list[tuple[str, ...]] = [
            ("split", "clips", "hours", "frames", "shortest", "longest", "texts", "speakers")
        ]
        shortest = min((s.shortest for s in self.splits if s.n_clips), default=0)
        total = SplitFacts("total", shortest=shortest)
        for s in self.splits:
            for name in ("n_clips", "n_samples", "n_frames", "n_texts"):
                setattr(total, name, getattr(total, name) + getattr(s, name))
            total.longest = max(total.longest, s.longest)
            total.speakers |= s.speakers
        for s in [*self.splits, *([total] if len(self.splits) > 1 else [])]:
            counts = (str(s.n_clips), f"{s.n_samples / rate / 3600:.2f}", str(s.n_frames))
            lengths = (f"{s.shortest / rate:.2f} s", f"{s.longest / rate:.2f} s")
            rows.append((s.split, *counts, *lengths, str(s.n_texts), str(len(s.speakers))))
        return rows

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each split."""
        about = self.provenance
        named = {"source": self.source, "codec": about.codec["name"], "corpus": about.corpus}
        return [{**named, **self._of_split(split)} for split in self.splits]

    def to_dict(self) -> dict[str, Any]:
        names = ("n_files", "n_bytes", "format", "packed", "kbps", "mean_depth", "n_rejected")
        return {
            "source": self.source,
            "content": self.provenance.content,
            "provenance": self.provenance.as_dict(),
            "frame_rate": self.provenance.codec_spec.frame_rate,
            "splits": [self._of_split(split) for split in self.splits],
            **{name: getattr(self, name) for name in names},
        }

    def _of_split(self, split: SplitFacts) -> dict[str, Any]:
        hours = split.n_samples / self.provenance.sample_rate / 3600
        return {**asdict(split), "hours": hours, "speakers": len(split.speakers)}
