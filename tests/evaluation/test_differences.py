"""Paired differences between rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokgen.evaluation.differences import row_differences
from tokgen.evaluation.metric import METRICS
from tokgen.metrics.statistics import bootstrap_mean


def records(pesq, edits=(), **more):
    pairs = zip(pesq, edits or [math.nan] * len(pesq), strict=True)
    return [{"pesq": p, "edits": e, "chars": 10, **more} for p, e in pairs]


def test_a_difference_is_that_of_the_clips():
    first, second = [2.0, 3.0, 2.5, 3.5, 2.2], [2.5, 3.6, 3.0, 4.1, 2.6]
    rows = {"a": records(first, [1, 2, 3, 4, 5]), "b": records(second, [2, 2, 3, 4, 5])}
    pesq, cer = row_differences(rows, [METRICS["pesq"], METRICS["cer"]], "a")
    plain = bootstrap_mean(np.subtract(second, first))
    assert (pesq.row, pesq.than, pesq.verdict) == ("b", "a", "better")
    assert pesq.estimate.mean == pytest.approx(plain.mean)
    assert (pesq.estimate.low, pesq.estimate.high) == pytest.approx((plain.low, plain.high))
    assert cer.estimate.mean == pytest.approx(1 / 50) and cer.verdict == "undecided"


def test_failures_count_on_both_sides_and_what_does_not_apply_on_none():
    a, b = records([2.0, math.nan, 2.5, 3.0]), records([2.5, 3.0, math.nan, 3.5])
    b[3]["not_applicable"] = {"pesq": "why"}
    [pesq] = row_differences({"a": a, "b": b}, [METRICS["pesq"]], "a")
    assert (pesq.estimate.n, pesq.estimate.n_failed) == (1, 2)
    nowhere = {"not_applicable": {"pesq": "why"}}
    none = {"a": records([1.0], **nowhere), "b": records([1.0], **nowhere)}
    assert row_differences(none, [METRICS["pesq"]], "a") == []
