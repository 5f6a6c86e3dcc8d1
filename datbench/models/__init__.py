"""What is measured: specs (free of torch) and the modules that they build."""

from __future__ import annotations

from .timm import install

install()  # timm gets our variants, now or when it is imported
