"""Token telephone: edit an utterance, decode it, encode the result, edit again.

Drift matters here in practice. An editor regenerates one region and writes audio, and the next edit
encodes that audio again. So every round sends the whole utterance through the codec, including the
parts that were never edited. Quality is measured for the whole clip and for the segments that were
never edited. PESQ scores each of these segments alone, so that no edit and no seam is in it.

With `stable`, every edit is decoded so that its codes come back, and what was never edited keeps
the codes of the original. With `shift`, the audio is moved before each edit, as a cut before it
would do; `grid` finds its frames again.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from tokgen.codec.aligned import LEAD
from tokgen.codec.base import Codec
from tokgen.codec.depth import OutOfReach
from tokgen.codec.grid import check_grid
from tokgen.codec.spec import Encoded, Side
from tokgen.codec.stable.decoding import check_searchable
from tokgen.comparison.settings import TelephoneSettings
from tokgen.drift.shifts import frame_of, place_clip
from tokgen.evaluation.metric import METRICS
from tokgen.evaluation.scorer import Scorer
from tokgen.generation.clips import generate_clips
from tokgen.generation.held_out import HeldOut
from tokgen.generation.prompts import around, gap_start
from tokgen.generation.settings import SamplingSettings
from tokgen.metrics import pesq
from tokgen.metrics.tables import Metric
from tokgen.modelling.masked import MaskedTransformer
from tokgen.nn.hashes import hash_weights
from tokgen.runs.accelerator import step_seed
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import ClipStore

__all__ = [
    "COUNTED",
    "GUARD_SECONDS",
    "MIN_SEGMENT_SECONDS",
    "SCORED",
    "UNTOUCHED",
    "Call",
    "check_codec",
    "play_telephone",
    "score_untouched",
]

GUARD_SECONDS = 0.1  # a decoder spreads an edit a little beyond its frames
MIN_SEGMENT_SECONDS = 0.4  # shorter ones have no room for an utterance and its pause
UNTOUCHED = (
    Metric("pesq_untouched", "PESQ of what was never edited", "higher"),
    Metric("match_untouched", "codes kept where nothing was edited", "higher", digits=3),
)
COUNTED = ("segments", "unscored")  # untouched segments, and those without a PESQ
SCORED = ("mos", "cer", "speaker", "pesq")  # of the whole clip, if the scorer has them


@dataclass(frozen=True)
class Call:
    """The utterances of one codec through all rounds.

    Attributes:
        codec: name of the codec.
        values: field to values [clips, rounds], NaN for a failure. The fields of `COUNTED` are
            numbers of segments.
        last: waveforms [1, N] after the last round; without samples for those in `lost`.
        lost: ids of the clips that came out of reach of the codec's bitrate, with the reason. All
            their values are NaN.
    """

    codec: str
    values: dict[str, np.ndarray]
    last: list[Tensor]
    lost: dict[str, str] = field(default_factory=dict)

    def records(self, round_: int) -> list[dict[str, float]]:
        """Return the fields of each clip after a round, counted from 1."""
        rows = zip(*(table[:, round_ - 1] for table in self.values.values()), strict=True)
        return [dict(zip(self.values, row, strict=True)) for row in rows]


def play_telephone(
    model: MaskedTransformer,
    held_out: HeldOut,
    settings: TelephoneSettings,
    sampling: SamplingSettings,
    scorer: Scorer,
    *,
    out: Path,
    seed: int = 0,
    batch_size: int = 8,
    progress: bool = True,
) -> Call:
    """Edit the first utterances repeatedly.

    The region is generated from the codes around it and, if the utterances have conditioning, from
    the conditioning of the original. Regions and sampling noise depend only on the seed, the
    utterance and the round, so they are the same for every codec.

    Args:
        model: model for the codec of the utterances, in eval mode.
        settings, sampling: what is edited, and how regions are generated.
        scorer: its metrics in `SCORED` are measured after every round.
        out: folder that keeps finished utterances. After a kill, the same call resumes.
        seed: seed of regions and sampling noise.
    Raises:
        ValueError: the codec cannot decode stably or has no grid, and the settings need it.
    """
    held_out = held_out.part(range(min(settings.n_clips, len(held_out))))
    codec = held_out.codec
    check_codec(codec, settings)
    plan: list[Any] = [_of_plan(settings), asdict(sampling)]
    plan += [hash_weights(model), held_out.fingerprint]
    plan += [seed, batch_size, scorer.backends, MIN_SEGMENT_SECONDS]
    store = ClipStore(out, codec.spec.name, plan)
    found: list[dict[str, np.ndarray]] = []
    bar = progress_bar("token telephone", total=len(held_out), unit="clip", show=progress)
    with bar:
        for start in range(0, len(held_out), batch_size):
            members = range(start, min(start + batch_size, len(held_out)))
            arrays = [store.read(i) for i in members]
            if any(a is None for a in arrays):
                part = held_out.part(members)
                arrays = [*_edit_reachable(model, part, settings, sampling, scorer, seed)]
                for i, content in zip(members, arrays, strict=True):
                    store.write(i, content or {})
            found += [a for a in arrays if a is not None]
            bar.update(len(members))
    values = {name: np.stack([a[name] for a in found]) for name in _fields(scorer)}
    lost = {
        i: bytes(a["reason"]).decode()
        for i, a in zip(held_out.ids, found, strict=True)
        if "reason" in a
    }
    return Call(codec.spec.name, values, [torch.from_numpy(a["last"]) for a in found], lost)


def check_codec(codec: Codec, settings: TelephoneSettings) -> None:
    """Raise ValueError if a codec cannot do what the settings need."""
    if settings.stable:
        check_searchable(codec)
    if settings.grid is not None or settings.shift:
        check_grid(codec.spec)


def _of_plan(settings: TelephoneSettings) -> dict[str, Any]:
    """Return the settings that results depend on, without those that change nothing."""
    found = asdict(settings)
    return {k: v for k, v in found.items() if v or k not in ("stable", "shift", "grid")}


@dataclass(frozen=True)
class _Heard:
    """The codes of a clip that lies within longer audio.

    Attributes:
        codes: [K, T'].
        side: side information that decoding needs.
        n_samples: length of the audio, with the zeros before its grid.
        start: sample in which the clip begins.
    """

    codes: Tensor
    side: Side
    n_samples: int
    start: int

    def stretched(self, frames: Tensor, hop_length: int) -> Tensor:
        """Repeat the ends of the clip's features [T, C], so that every frame has some."""
        index = torch.arange(self.codes.shape[-1]) - round(self.start / hop_length)
        return frames[index.clamp(0, len(frames) - 1)]


def _hear(
    codec: Codec, waveforms: list[Tensor], places: list[int], settings: TelephoneSettings
) -> list[_Heard]:
    """Encode clips [1, N], each moved to its place."""
    room = frame_of(codec.spec) - 1 if settings.shift else 0
    moved = [
        pad(w, (place, room - place)) if room else w
        for w, place in zip(waveforms, places, strict=True)
    ]
    found = []
    for place, w, e in zip(
        places, moved, codec.encode_batch_with_side(moved, grid=settings.grid), strict=True
    ):
        lead = int(e.side.get(LEAD, torch.zeros(1)))
        side = {name: e.side[name] for name in codec.side_names}
        found.append(_Heard(e.codes.cpu(), side, lead + w.shape[-1], lead + place))
    return found


def _fields(scorer: Scorer) -> list[str]:
    """Return the fields that are kept of each round."""
    fields = [*(m.name for m in UNTOUCHED), *COUNTED]
    for name in SCORED:
        if name in scorer.metrics:
            fields += METRICS[name].ratio or (name,)
    return fields


def _edit_reachable(
    model: MaskedTransformer,
    part: HeldOut,
    settings: TelephoneSettings,
    sampling: SamplingSettings,
    scorer: Scorer,
    seed: int,
) -> list[dict[str, np.ndarray]]:
    """Edit utterances as `_edit`; those out of reach get NaN, no samples and a "reason"."""
    try:
        return _edit(model, part, settings, sampling, scorer, seed)
    except OutOfReach as error:
        if len(part) == 1:
            failed = {f: np.full(settings.rounds, math.nan) for f in _fields(scorer)}
            failed |= {f: np.zeros(settings.rounds) for f in COUNTED}
            reason = np.frombuffer(str(error).encode(), np.uint8)
            return [failed | {"last": np.zeros((1, 0), np.float32), "reason": reason}]
    each = [_edit_reachable(model, part.part([i]), settings, sampling, scorer, seed)
            for i in range(len(part))]  # fmt: skip
    return [found for [found] in each]


def _edit(
    model: MaskedTransformer,
    part: HeldOut,
    settings: TelephoneSettings,
    sampling: SamplingSettings,
    scorer: Scorer,
    seed: int,
) -> list[dict[str, np.ndarray]]:
    """Edit utterances and return the fields [rounds] of each, and its last waveform as "last"."""
    spec, rate = part.codec.spec, part.codec.spec.sample_rate
    heard = part.originals
    untouched = [torch.ones(n, dtype=torch.bool) for n in part.n_samples]
    still = [torch.ones_like(c, dtype=torch.bool) for c in part.codes]
    rows: list[list[dict[str, float]]] = [[] for _ in heard]
    frame = frame_of(spec)
    places = [
        place_clip(settings.shift, settings.rounds, frame, seed=seed, clip=id) for id in part.ids
    ]
    for n in range(settings.rounds):
        encoded = _hear(part.codec, heard, [place[n] for place in places], settings)
        keep = []
        for i, (length, item) in enumerate(zip(part.n_samples, part.items, strict=True)):
            seeds = (seed, item, n if settings.moving else 0)
            start = gap_start(spec, length, settings.gap_seconds, seeds)
            end = start + settings.gap_seconds
            before = encoded[i].start / rate
            keep.append(around(spec, encoded[i].n_samples, before + start, before + end))
            first, last = (round(t * rate) for t in (start - GUARD_SECONDS, end + GUARD_SECONDS))
            untouched[i][max(0, first) : last] = False
            still[i] &= around(spec, length, start - GUARD_SECONDS, end + GUARD_SECONDS)
        told = part.conditioning
        if told is not None:
            pairs = zip(encoded, told, strict=True)
            told = [e.stretched(frames, frame) for e, frames in pairs]
        made = generate_clips(
            model,
            part.codec,
            [e.n_samples for e in encoded],
            sampling,
            codes=[e.codes for e in encoded],
            keep=keep,
            conditioning=told,
            sides=[e.side for e in encoded] if part.codec.side_names else None,
            seed=step_seed(seed, n),
            item_ids=part.items,
            batch_size=len(heard),
            stable=settings.stable,
        )
        heard = [
            g.waveform[:, e.start : e.start + length]
            for g, e, length in zip(made, encoded, part.n_samples, strict=True)
        ]
        again = part.codec.encode_batch_with_side(heard)
        for i, (now, original) in enumerate(zip(heard, part.originals, strict=True)):
            scores = scorer.score(now, original, part.texts[i], rate)
            scores |= score_untouched(original, now, untouched[i], rate)
            compared = still[i] & _live(again[i], part, i)
            same = (again[i].codes.cpu() == part.codes[i])[compared].double()
            scores["match_untouched"] = float(same.mean()) if len(same) else math.nan
            rows[i].append(scores)
    fields = _fields(scorer)
    return [
        {f: np.array([r[f] for r in row], dtype=np.float64) for f in fields}
        | {"last": heard[i].numpy()}
        for i, row in enumerate(rows)
    ]


def _live(again: Encoded, part: HeldOut, i: int) -> Tensor:
    """Return the codes [K, T] of utterance i that both the original and `again` have."""
    depths, n_codebooks = part.depths, part.codes[i].shape[0]
    if depths is None or again.depth is None:
        return torch.ones_like(part.codes[i], dtype=torch.bool)
    both = torch.minimum(again.depth.cpu(), depths[i])
    return torch.arange(n_codebooks)[:, None] < both


def score_untouched(
    original: Tensor, now: Tensor, untouched: Tensor, sample_rate: int
) -> dict[str, float]:
    """Score each untouched segment alone with PESQ.

    Args:
        original, now: waveforms [1, N].
        untouched: bool [N].
        sample_rate: Hz.
    Returns:
        "pesq_untouched", the mean over segments, weighted by length; NaN if none has a score.
        "segments", the number of segments, and "unscored", how many of them are shorter than
        `MIN_SEGMENT_SECONDS` or have no utterance.
    """
    ends = torch.diff(untouched.int(), prepend=torch.zeros(1), append=torch.zeros(1))
    starts, stops = (torch.nonzero(ends == sign).flatten().tolist() for sign in (1, -1))
    total, weight, unscored = 0.0, 0, 0
    for start, stop in zip(starts, stops, strict=True):
        length = stop - start
        if length < MIN_SEGMENT_SECONDS * sample_rate:
            unscored += 1
            continue
        found = pesq.measure_pesq(original[:, start:stop], now[:, start:stop], sample_rate)
        if found.reason == pesq.NO_UTTERANCE:
            unscored += 1
        else:  # NaN if PESQ failed
            total, weight = total + found.value * length, weight + length
    mean = total / weight if weight else math.nan
    return {"pesq_untouched": mean, "segments": len(starts), "unscored": unscored}
