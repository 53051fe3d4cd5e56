"""Floor 0: errors, atomic files, hashing, strict YAML, progress and platform facts. Knows nothing of models or norms."""
