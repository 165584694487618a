"""The synthetic corpus: drawn pictures, spoken sentences and short conversations."""
