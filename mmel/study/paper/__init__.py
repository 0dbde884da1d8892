"""The paper's own numbers, as CSV."""
