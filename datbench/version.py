"""The version, by itself: what says it need not know the package's contents."""

__version__ = "0.1.0"
