"""Makers of tiny codecs, corpora, token datasets, trainings and runs, shared by all tests."""
