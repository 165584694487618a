"""Teach a text language model to see and hear."""

from omnitune.hooks import install

__version__ = "0.1.0"

install()
