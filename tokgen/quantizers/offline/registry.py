"""The offline quantizers by name.

quantizer = make_quantizer("qinco2", dim=64, n_codebooks=8, codebook_size=256)
quantizer = load_quantizer("folder")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokgen.nn.files import read_json, shorten
from tokgen.nn.hub import CONFIG
from tokgen.quantizers.offline.additive import LocalSearchQuantizer, ResidualKMeans
from tokgen.quantizers.offline.base import OfflineQuantizer
from tokgen.quantizers.offline.product import ProductQuantizer, RotatedProductQuantizer
from tokgen.quantizers.offline.qinco2 import Qinco2
from tokgen.quantizers.offline.scalar import FiniteScalar, ResidualFiniteScalar

__all__ = ["QUANTIZERS", "load_quantizer", "make_quantizer"]

QUANTIZERS: dict[str, type[OfflineQuantizer]] = {
    "kmeans": ResidualKMeans,
    "lsq": LocalSearchQuantizer,
    "pq": ProductQuantizer,
    "opq": RotatedProductQuantizer,
    "fsq": FiniteScalar,
    "rfsq": ResidualFiniteScalar,
    "qinco2": Qinco2,
}


def make_quantizer(name: str, **settings: Any) -> OfflineQuantizer:
    """Create a quantizer of `QUANTIZERS`, not fitted yet.

    Raises:
        ValueError: unknown name or setting, or a wrong value.
    """
    if name not in QUANTIZERS:
        raise ValueError(f"quantizer {name!r}: known are {', '.join(QUANTIZERS)}")
    try:
        return QUANTIZERS[name](**settings)
    except TypeError as error:
        raise ValueError(f"quantizer {name}: {error}") from error


def load_quantizer(folder: str | Path) -> OfflineQuantizer:
    """Load a quantizer that `save_pretrained` wrote.

    Raises:
        ValueError: the folder holds no quantizer, or is damaged.
    """
    found = read_json(Path(folder) / CONFIG).get("model_type")
    for quantizer in QUANTIZERS.values():
        if quantizer.model_type == found:
            return quantizer.from_pretrained(folder)
    known = ", ".join(q.model_type for q in QUANTIZERS.values())
    raise ValueError(f"{folder} holds {shorten(found)}, which is no offline quantizer: {known}")
