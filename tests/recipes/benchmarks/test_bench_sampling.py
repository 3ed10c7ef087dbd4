"""The sampling benchmark, tiny. If its peer is missing, it says how to install it."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from torch import nn

import bench_sampling as bench
from ceilings import Ceilings

SIZES = ["--rounds", "1", "--utterances", "3", "--seconds", "0.2", "--batch-size", "2"]


@pytest.fixture(autouse=True)
def ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure_ceilings", lambda *_: Ceilings(1e11, 1e10, "x", "cpu"))


class StandIn(nn.Module):
    """Returns zeros in the shape that soundstorm-pytorch returns."""

    def generate(self, num_latents: int, batch_size: int) -> torch.Tensor:
        return torch.zeros(batch_size, num_latents * 8, dtype=torch.int64)


def test_ours_beside_a_stand_in(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(bench, "make_peer", lambda *_: (StandIn(), "a stand-in"))
    monkeypatch.setitem(bench.PRESETS, "small", {"dim": 32, "depth": 1, "heads": 2, "dim_head": 16})
    assert bench.main([*SIZES, "--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert next(iter(found["comparisons"].values()))["checked"].startswith("(3, 8, 10) codes")
    same, _, total = found["extra"]["codes of a batch equal to those one by one"].split()
    assert int(total) == 3 * 8 * 10 and int(same) >= 0.9 * int(total)
    assert found["extra"]["FLOPs"] > 0
    monkeypatch.setattr(StandIn, "generate", lambda *_, **__: torch.zeros(2, 8 * 11).long())
    with pytest.raises(SystemExit, match="soundstorm-pytorch made codes"):
        bench.main(SIZES)


@pytest.mark.skipif(
    importlib.util.find_spec("soundstorm_pytorch") is not None, reason="the peer is installed"
)
def test_a_missing_peer_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps soundstorm-pytorch"):
        bench.main(SIZES)


def test_the_peer_makes_codes() -> None:
    pytest.importorskip("soundstorm_pytorch")
    assert bench.main(SIZES) == 0
