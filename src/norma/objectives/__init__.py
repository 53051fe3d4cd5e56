"""Floor 2: one file per loss. Pure functions of tensors; no loops over data, no models. Shapes in the docstrings, papers cited."""
