"""A long campaign: `PYTHONPATH=tests python -m fuzz --files 20000`."""

from __future__ import annotations

import argparse
import sys

from fuzz.campaign import run_campaign

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--kind", action="append", default=[])
    flags = parser.parse_args()
    outcome = run_campaign(flags.files, flags.seed, tuple(flags.kind))
    print(outcome.table())
    sys.exit(bool(outcome.faults))
