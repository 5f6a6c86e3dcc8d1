"""Checks of whether datbench counts, simulates and measures rightly on a machine."""
