"""Measures of audio and codes: one module each, one value per clip, NaN for a failure."""
