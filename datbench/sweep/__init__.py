"""Sweeps: a grid of measurements in a directory, which can be killed at any time and resumed."""
