"""What is measured: specs (free of torch) and the modules that they build."""

from .timm_registration import install

install()  # timm gets our variants, now or when it is imported
