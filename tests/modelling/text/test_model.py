"""The text model: batches, what `frames` holds, saving, and an aligner that learns."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from tokgen.modelling.text.model import TextModel
from tokgen.modelling.text.settings import TextModelSettings
from tokgen.modelling.text.symbols import Symbols

TEXTS = ["abc, de.", "ab"]
SIZES: dict[str, Any] = {"dim": 16, "encoder_depth": 1, "decoder_depth": 1, "kernel": 3}


def make_model(**more: Any) -> TextModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = Symbols.of_texts(["abcde"]).names
        mean, std = [1.0] * 4, [2.0] * 4
        return TextModel(
            symbols=names, n_features=4, features_mean=mean, features_std=std, **SIZES, **more
        ).eval()


def sound_of(model: TextModel, text: str, durations: list[int]) -> Tensor:
    """Features [T, 4] that say which symbol sounds: each has a random vector of its own."""
    table = torch.randn(len(model.symbols), 4, generator=torch.Generator().manual_seed(1))
    symbols = model.symbols.encode(text)
    return 1 + 2 * table[symbols.repeat_interleave(torch.tensor(durations))]


def test_padding_changes_no_loss() -> None:
    model = make_model()
    features = torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(0))
    symbols = [model.symbols.encode(text) for text in TEXTS]
    both = torch.nn.utils.rnn.pad_sequence(symbols, batch_first=True)
    sizes = torch.tensor([len(s) for s in symbols]), torch.tensor([20, 13])
    alone = [
        model(symbols[i][None], sizes[0][i : i + 1], features[i : i + 1, :n], sizes[1][i : i + 1])
        for i, n in enumerate((20, 13))
    ]
    together = model(both, sizes[0], features, sizes[1])
    mean = (alone[0].alignment + alone[1].alignment) / 2
    torch.testing.assert_close(together.alignment, mean, rtol=1e-4, atol=1e-5)
    n = sizes[1].float()
    mean = (alone[0].features * n[0] + alone[1].features * n[1]) / n.sum()
    torch.testing.assert_close(together.features, mean, rtol=1e-4, atol=1e-5)


def test_frames_hold_symbols_places_and_features() -> None:
    model = make_model()
    n = len(model.symbols.encode(TEXTS[0]))
    durations = [torch.arange(n) % 3 + 1, torch.tensor([2, 1, 1, 2])]
    first, second = model.frames(TEXTS, durations)
    assert first.shape == (int(durations[0].sum()), model.conditioning_dim) and len(second) == 6
    shown = first[:, : len(model.symbols)]
    wanted = model.symbols.encode(TEXTS[0]).repeat_interleave(durations[0])
    assert shown.argmax(-1).equal(wanted) and shown.sum(-1).eq(1).all()
    torch.testing.assert_close(
        second[0, len(shown[0]) : len(shown[0]) + 2], torch.tensor([0.25, 0.75])
    )
    [alone] = model.frames(TEXTS[1:], durations[1:])
    assert alone.equal(second)


def test_speed_shortens_speech() -> None:
    model = make_model()
    model.duration_head.bias.data.fill_(2.0)
    plain, fast = model.durations("abc de"), model.durations("abc de", speed=2.0)
    assert (fast >= 1).all() and fast.sum() < plain.sum()
    assert [len(f) for f in model.frames(["abc de"])] == [int(plain.sum())]
    with pytest.raises(ValueError, match=r"speed = 9: must be between 0\.25 and 4"):
        model.durations("abc", speed=9)


def test_the_aligner_learns_which_symbol_sounds() -> None:
    """Each symbol has a sound of its own: the true durations are found, and then predicted."""
    model = make_model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    draw = torch.Generator().manual_seed(3)
    texts = ["abcde", "edcba", "badec", "cab", "deb", "aecdb"]
    frames = [torch.randint(2, 7, (len(t) + 2,), generator=draw).tolist() for t in texts]
    symbols = [model.symbols.encode(t) for t in texts]
    sounds = [sound_of(model, t, d) for t, d in zip(texts, frames, strict=True)]
    pad = torch.nn.utils.rnn.pad_sequence
    batch = (
        pad(symbols, batch_first=True), torch.tensor([len(s) for s in symbols]),
        pad(sounds, batch_first=True), torch.tensor([len(s) for s in sounds]),
    )  # fmt: skip

    def n_wrong() -> int:
        found = [model.align(t, x).tolist() for t, x in zip(texts, sounds, strict=True)]
        pairs = zip(chain(*found), chain(*frames), strict=True)
        return sum(abs(a - b) for a, b in pairs)

    before, first = n_wrong(), model(*batch).features.item()
    for _ in range(80):
        optimizer.zero_grad()
        losses = model(*batch)
        losses.total.backward()
        optimizer.step()
    model.eval()
    assert n_wrong() < 0.2 * sum(map(sum, frames)) and n_wrong() < 0.5 * before
    assert losses.features.item() < 0.5 * first


def test_a_saved_model_says_the_same(tmp_path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path / "m")
    again = TextModel.from_pretrained(tmp_path / "m")
    assert again.frames(TEXTS)[0].equal(model.frames(TEXTS)[0])
    assert again.symbols.names == model.symbols.names


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("kernel", 4, "must be odd"), ("dim", 0, "at least 1"), ("dropout", 1.0, "below 1")],
)
def test_wrong_sizes_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"{field} = {value}: .*{message}"):
        TextModelSettings(**{field: value})
