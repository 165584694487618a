"""Teach a text language model to see and hear."""

__version__ = "0.1.0"
