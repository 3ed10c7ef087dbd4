"""A target for atheris: bytes end as the events of a .tgc file, or in a clear ValueError.

    pip install atheris
    PYTHONPATH=.:tests python tests/fuzz/atheris_tgc.py -max_total_time=600

Every input is read as it is, and once as each version with its checksums mended.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["tokgen.bitstream"]):
    from bitstream.tgc.test_container import mend, read


def read_one(data: bytes) -> None:
    for content in (data, *(mend(b"\x89TGC" + version + data[5:]) for version in (b"\1", b"\2"))):
        try:
            read(content)
        except ValueError as error:
            assert len(str(error)) < 300


if __name__ == "__main__":
    atheris.Setup(sys.argv, read_one)
    atheris.Fuzz()
