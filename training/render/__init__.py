"""Renderers: every picture follows from a seed and comes with its exact ground truth."""
