"""The version, without importing torch."""

__version__ = "0.2.0"
