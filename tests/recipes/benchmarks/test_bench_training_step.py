"""The training-step benchmark, tiny: both contenders run."""

from __future__ import annotations

import json

import pytest
from accelerate.state import AcceleratorState
from torch import nn

import bench_training_step as bench
from ceilings import Ceilings


class Peer(nn.Module):
    """A network with a known number of products."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(1024, 16), nn.Linear(16, 1024)

    def forward(self, codes):
        logits = self.head(self.embed(codes[..., 0]))
        return nn.functional.cross_entropy(logits.flatten(0, 1), codes[..., 0].flatten()), None


def test_our_step_with_a_stand_in_for_the_peer(monkeypatch, tmp_path) -> None:
    AcceleratorState._reset_state()  # earlier tests may have set another precision
    monkeypatch.setattr(bench, "make_peer", lambda *_: (Peer(), "a stand-in"))
    monkeypatch.setitem(bench.PRESETS, "small", {"dim": 32, "depth": 1, "heads": 2, "dim_head": 16})
    monkeypatch.setattr(bench, "measure_ceilings", lambda *_: Ceilings(1e11, 1e10, "x", "cpu"))
    out = tmp_path / "report.json"
    flags = ["--preset", "small", "--batch-size", "2", "--steps", "1", "--rounds", "1"]
    assert bench.main([*flags, "--precision", "fp32", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    (times,) = report["comparisons"].values()
    assert (times["ours"], times["peer"]) == ("tokgen", "soundstorm-pytorch")
    extra = report["extra"]
    assert "roofline: " in extra["roofline"]
    # an embedding needs no products
    assert extra["model FLOPs per step"]["soundstorm-pytorch"] == 2 * 3 * 2 * 250 * 16 * 1024


def test_the_peer_is_of_equal_size() -> None:
    bench.stand_in()
    pytest.importorskip("soundstorm_pytorch")
    peer, about = bench.make_peer(9_000_000, 256, 4)
    assert abs(bench.count(peer) - 9_000_000) < 0.5e6, about
