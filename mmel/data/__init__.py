"""Data sets as whole tensors: the real ones from disk, the embedded ones from code."""
