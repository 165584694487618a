"""The embedded default, a model that two cores train; the core imports nothing of it."""
