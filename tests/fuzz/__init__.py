"""Damaged files: every one ends in a value, a rejection or a clear error.

    PYTHONPATH=tests python -m fuzz --files 20000

- `damage` damages bytes, JSON, CSV, safetensors and Parquet.
- `targets` makes healthy files of each kind, and opens damaged ones.
- `campaign` opens many in child processes under a limit of memory, and counts how they end.
"""
