"""How good a model or a dataset is, as plain data classes."""
