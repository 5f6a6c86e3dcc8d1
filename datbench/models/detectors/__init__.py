"""Detectors and segmentors on a backbone: names free of torch, modules, and what joins them."""
