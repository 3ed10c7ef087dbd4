"""Paths inside the checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLISON = ROOT / "recipes" / "data" / "allison"
