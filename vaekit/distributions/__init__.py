"""Distributions and divergences: pure probability, no networks."""
