"""Convert the weights in Resemblyzer's wheel to the safetensors file in tokgen/metrics/weights.

    pip download --no-deps Resemblyzer==0.1.4
    python recipes/data/convert_resemblyzer.py Resemblyzer-0.1.4-py3-none-any.whl

The wheel is data here: nothing of it is imported, and its pickle is loaded with `weights_only`.
The weights become float16, which changes the cosine of two clips by 0.0003 at most (60 clips of
four voices). The optimiser's state and the scale of the training loss are left out.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from tokgen.metrics.resemblyzer import WEIGHTS

PICKLE = "resemblyzer/pretrained.pt"
SOURCE = {"source": "Resemblyzer 0.1.4, resemblyzer/pretrained.pt", "license": "apache-2.0"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    a = parser.parse_args(argv)
    with zipfile.ZipFile(a.wheel) as wheel:
        pickled = io.BytesIO(wheel.read(PICKLE))
    weights = torch.load(pickled, map_location="cpu", weights_only=True)["model_state"]
    kept = {name: w.half() for name, w in weights.items() if name.startswith(("lstm.", "linear."))}
    a.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, a.out, SOURCE)
    print(f"{a.out}: {len(kept)} tensors, {a.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
