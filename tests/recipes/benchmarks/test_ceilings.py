"""Limits of the machine, FLOPs of jobs, and the roofline."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import conv1d, scaled_dot_product_attention

import ceilings
from ceilings import Ceilings, count_flops, machine, measure_ceilings, roofline


def test_flops_of_products_convolutions_and_attention():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    x, w = torch.ones(2, 3, 10), torch.ones(4, 3, 3)
    assert count_flops(lambda: conv1d(x, w)) == 2 * 2 * 4 * 8 * 3 * 3
    q = torch.randn(1, 2, 64, 32, requires_grad=True)
    attention = 2 * (2 * 2 * 64 * 64 * 32)
    with torch.no_grad():
        assert count_flops(lambda: scaled_dot_product_attention(q, q, q)) == attention
    both = count_flops(lambda: scaled_dot_product_attention(q, q, q).sum().backward())
    assert both == 3.5 * attention  # the backward pass computes the scores again


def test_roofline_is_the_larger_of_the_two_bounds():
    measured = Ceilings(100e9, 10e9, "float32", "cpu", 2)
    compute = roofline(measured, 50e9, 1e9, 1.0)
    assert "50.0 GFLOP/s (50.0% of 100.0, float32)" in compute
    assert "1.00 GB/s (10.0% of 10.0)" in compute
    assert "bound by compute: at least 0.5 s, took 1 s (50.0% of the roofline)" in compute
    assert "bound by memory: at least 2 s, took 4 s" in roofline(measured, 50e9, 20e9, 4.0)


def test_ceilings_are_measured(monkeypatch):
    monkeypatch.setattr(ceilings, "SECONDS", 0.01)
    monkeypatch.setattr(ceilings, "SIZES", {"cpu": (64, 256)})
    monkeypatch.setattr(ceilings, "FLOATS", {"cpu": 1 << 20})
    found = measure_ceilings()
    assert (found.dtype, found.device, found.threads) == ("float32", "cpu", 1)
    assert 1e6 < found.flops < 1e15 and 1e6 < found.bytes_per_second < 1e15
    # The largest matrix is the fastest by the FLOP, and the triad by the byte, at equal seconds.
    monkeypatch.setattr(ceilings, "_best_seconds", lambda run, device: run() is None or 0.5)
    found = measure_ceilings()
    assert found.flops == 2 * 256**3 / 0.5
    assert found.bytes_per_second == 12 * (1 << 20) / 0.5


def test_the_fastest_run_counts(monkeypatch):
    now, runs = [0.0], iter([9.0, 3.0, 1.0, 2.0])  # the first run is a warmup
    monkeypatch.setattr(ceilings, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def run():
        now[0] += next(runs)

    assert ceilings._best_seconds(run, "cpu") == 1.0
    assert list(runs) == []


def test_machine_names_what_figures_depend_on():
    found = machine()
    assert {"cpu", "cores", "memory", "gpu", "threads", "torch", "transformers"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


@pytest.mark.gpu
def test_ceilings_of_a_gpu():
    found = measure_ceilings("cuda", torch.bfloat16)
    assert found.dtype == "bfloat16" and found.device == torch.cuda.get_device_name()
    assert found.flops > 1e12 and found.bytes_per_second > 1e11
