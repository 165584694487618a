"""The embedded default, a model that two cores train; the core imports nothing of it."""

from omnitune.tiny import sources as sources
