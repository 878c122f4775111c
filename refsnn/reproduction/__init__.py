"""Whole plans: the paper's path for every task and seed, and the demonstration."""
