"""Token datasets of a variable bitrate: rows whose frames have lists of unequal length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset

from makers.codecs import make_variable
from tokgen.codec.spec import DEPTH
from tokgen.tokens.columns import codes_of, depths_of, sides_of, token_features
from tokgen.tokens.provenance import Provenance, add_provenance, provenance_of

K = 4


@pytest.fixture(scope="module")
def provenance() -> Provenance:
    spec = make_variable().spec
    numbers = spec.sample_rate, spec.hop_length, spec.n_codebooks, spec.codebook_size
    return Provenance(spec.as_dict(), *numbers, None, "0", "corpus", "0" * 64, level=1.5)


@pytest.fixture
def rows(provenance: Provenance) -> Dataset:
    features = add_provenance(token_features(K, {}, variable=True), provenance)
    codes = [[[1, 2], [3]], [[4, 5, 6, 7], [8, 9, 10], [11]]]
    kept = type(features)({name: features[name] for name in ("codes", "n_samples")})
    return Dataset.from_dict({"codes": codes, "n_samples": [640, 960]}, features=kept)


def test_codes_past_the_depth_are_zero(rows: Dataset) -> None:
    for found, order in ((rows, [0, 1]), (rows.select([1, 0]), [1, 0]), (rows.select([1]), [1])):
        depths = depths_of(found)
        assert depths is not None
        codes = codes_of(found)
        expected = [[[1, 3], [2, 0], [0, 0], [0, 0]]]
        expected += [[[4, 8, 11], [5, 9, 0], [6, 10, 0], [7, 0, 0]]]
        for c, d, i in zip(codes, depths, order, strict=True):
            assert c.dtype == d.dtype == torch.int64
            assert c.tolist() == expected[i] and d.tolist() == [[2, 1], [4, 3, 1]][i]
    assert codes_of(rows.with_format("numpy"))[0].tolist() == expected[0]


def test_a_depth_is_side_information(rows: Dataset, provenance: Provenance) -> None:
    for names in ((), (DEPTH,)):
        sides = sides_of(rows, names)
        assert sides is not None and [side[DEPTH].tolist() for side in sides] == [[2, 1], [4, 3, 1]]
        assert sides[0][DEPTH].dtype == torch.float32
    constant = replace(provenance, level=None)
    features = add_provenance(token_features(K, {}), constant)
    codes = np.zeros((1, 5, K), np.uint16).tolist()
    plain = Dataset.from_dict(
        {"codes": codes}, features=type(features)({"codes": features["codes"]})
    )
    assert depths_of(plain) is None and sides_of(plain, ()) is None
    full = sides_of(plain, (DEPTH,))
    assert full is not None and full[0][DEPTH].tolist() == [K] * 5


def test_the_rate_is_in_the_provenance(rows: Dataset, provenance: Provenance) -> None:
    found = provenance_of(rows)
    assert found.level == 1.5 and found.rate is not None and found.rate.n_codebooks == K
    other = replace(provenance, level=None, bitrate=2.5)
    assert provenance.differences(other) == ["rate: level 1.5 → 2.5 kbps"]
    constant = replace(provenance, level=None)
    assert constant.differences(provenance) == ["rate: all levels → level 1.5"]
    assert not {"level", "bitrate"} & set(constant.as_dict())


@pytest.mark.parametrize(
    "change", [{"level": "1"}, {"level": 0}, {"level": True}, {"bitrate": 2.0}], ids=str
)
def test_a_wrong_rate_is_no_provenance(provenance: Provenance, change: dict) -> None:
    with pytest.raises(ValueError, match="no readable provenance"):
        Provenance.from_json(replace(provenance, **change).to_json(), "rows")
