"""The benchmark of a training step, small: both contenders run and are told apart."""

from __future__ import annotations

import importlib.util
import json

import pytest

from ceilings import Ceilings
from makers.recipes import ROOT

PATH = ROOT / "recipes" / "benchmarks" / "bench_training_step.py"


@pytest.fixture
def bench():
    spec = importlib.util.spec_from_file_location("bench_training_step", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_our_step_with_a_stand_in_for_the_peer(bench, monkeypatch, tmp_path) -> None:
    """The peer's place is taken by a network of a known number of products."""
    from torch import nn

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(1024, 16), nn.Linear(16, 1024)

        def forward(self, codes):
            logits = self.head(self.embed(codes[..., 0]))
            return nn.functional.cross_entropy(logits.flatten(0, 1), codes[..., 0].flatten()), None

    monkeypatch.setattr(bench, "make_peer", lambda *_: (Peer(), "a stand-in"))
    monkeypatch.setitem(bench.PRESETS, "small", {"dim": 32, "depth": 1, "heads": 2, "dim_head": 16})
    monkeypatch.setattr(bench, "measure_ceilings", lambda *_: Ceilings(1e11, 1e10, "x", "cpu"))
    out = tmp_path / "report.json"
    flags = ["--preset", "small", "--batch-size", "2", "--steps", "1", "--rounds", "1"]
    assert bench.main([*flags, "--precision", "fp32", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    text = json.dumps(report)
    assert "tokgen" in text and "roofline" in text
    # rows of an embedding need no products
    assert find(report, "model FLOPs per step")["soundstorm-pytorch"] == 2 * 3 * 2 * 250 * 16 * 1024


def test_the_peer_is_of_equal_size(bench) -> None:
    bench.stand_in()
    pytest.importorskip("soundstorm_pytorch")
    peer, about = bench.make_peer(9_000_000, 256, 4)
    assert abs(bench.count(peer) - 9_000_000) < 0.5e6, about


def find(content, name):
    if isinstance(content, dict):
        if name in content:
            return content[name]
        content = list(content.values())
    if isinstance(content, list):
        return next((f for c in content if (f := find(c, name)) is not None), None)
    return None
