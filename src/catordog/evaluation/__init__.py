"""Measure how good a model or a dataset is; results are data classes."""
