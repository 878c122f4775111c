"""Figures of a run, each a function of numbers."""
