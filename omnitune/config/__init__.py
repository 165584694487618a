"""Configuration: what can be set, within which limits, and how file and command line are read."""
