"""Measure the limits of the machine, and compare a job with them: the roofline model.

A job takes at least FLOPs / (FLOP/s) and at least bytes / (bytes/s). See S. Williams, A. Waterman
and D. Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tokgen.nn.dense import linear, without_onednn
from tokgen.runs.folder import versions

SECONDS = 0.3  # of measuring each size
SIZES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192, 16384)}  # rows of square matrices
FLOATS = {"cpu": 32 << 20, "cuda": 256 << 20}  # copied floats: more than any cache holds


def _attention(q: Any, k: Any, v: Any, *rest: Any, **named: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(gradient: Any, q: Any, k: Any, v: Any, *rest: Any, **named: Any) -> int:
    return sdpa_backward_flop_count(gradient, q, k, v)


_CPU_ATTENTION = {  # missing in torch's own table
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@dataclass(frozen=True)
class Ceilings:
    """The highest rates that this machine reaches on simple work.

    Attributes:
        flops: FLOP/s of the fastest large matrix product.
        bytes_per_second: bytes/s of the fastest large copy or triad. Bytes that a cache fetches
            before a write are not counted.
        dtype: type of the matrix product, with "(TF32)" if float32 uses it.
        device: "cpu" or the name of the GPU.
        threads: number of torch's CPU threads.
    """

    flops: float
    bytes_per_second: float
    dtype: str
    device: str
    threads: int = field(default_factory=torch.get_num_threads)


def measure_ceilings(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Ceilings:
    """Measure the ceilings for the roofline, in a few seconds.

    Args:
        device: "cpu" or a CUDA device.
        dtype: type of the matrix product. The copy and the triad are float32.
    """
    kind = torch.device(device).type
    on_gpu = kind == "cuda"
    flops = 0.0
    for n in SIZES[kind]:
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in "ab")
        out = torch.empty_like(a)
        best = _best_seconds(partial(torch.mm, a, b, out=out), device)
        with torch.no_grad():  # on a CPU, oneDNN may be faster than torch's own
            best = min(best, _best_seconds(partial(linear, a, b), device))
        flops = max(flops, 2 * n**3 / best)
        del a, b, out
    n = FLOATS[kind]
    x, y, out = (torch.ones(n, device=device) for _ in "abc")
    copy = 8 * n / _best_seconds(lambda: out.copy_(x), device)
    triad = 12 * n / _best_seconds(lambda: torch.add(x, y, alpha=3.0, out=out), device)
    exact = torch.get_float32_matmul_precision() == "highest"
    tf32 = on_gpu and dtype == torch.float32 and not exact
    return Ceilings(
        flops,
        max(copy, triad),
        str(dtype).removeprefix("torch.") + " (TF32)" * tf32,
        torch.cuda.get_device_name(device) if on_gpu else "cpu",
    )


def _best_seconds(run: Callable[[], Any], device: str | torch.device) -> float:
    """Return the seconds of the fastest run, of at least 3 runs and `SECONDS`."""
    wait = torch.device(device).type == "cuda"
    best, runs, until = float("inf"), 0, time.perf_counter() + SECONDS
    run()
    while runs < 3 or time.perf_counter() < until:
        if wait:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if wait:
            torch.cuda.synchronize(device)
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def count_flops(run: Callable[[], Any]) -> int:
    """Count the FLOPs of matrix products, convolutions and attention.

    A multiplication and an addition count as two. Work in other processes or in compiled code is
    not counted, so pass the plain model.
    """
    with without_onednn(), FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        run()
    return counter.get_total_flops()


def roofline(ceilings: Ceilings, flops: float, bytes: float, seconds: float) -> str:
    """Say in one line which rates a job reached, their share of each ceiling, and its bound.

    Args:
        ceilings: limits of the machine.
        flops: FLOPs that the job needs at least.
        bytes: bytes that the job must move at least.
        seconds: time that the job took.
    """
    compute, memory = flops / ceilings.flops, bytes / ceilings.bytes_per_second
    bound, why = max((compute, "compute"), (memory, "memory"))
    return (
        f"roofline: {flops / seconds / 1e9:.1f} GFLOP/s ({compute / seconds:.1%} of "
        f"{ceilings.flops / 1e9:.1f}, {ceilings.dtype}), {bytes / seconds / 1e9:.2f} GB/s "
        f"({memory / seconds:.1%} of {ceilings.bytes_per_second / 1e9:.1f}); bound by {why}: "
        f"at least {bound:.4g} s, took {seconds:.4g} s ({bound / seconds:.1%} of the roofline)"
    )


def machine() -> dict[str, str]:
    """Describe the machine: processor, memory, GPU, threads, versions of libraries."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {
        "cpu": _cpu_model(),
        "cores": f"{allowed} of {os.cpu_count()}",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(torch.get_num_threads()),
    }
    return found | versions()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
