"""Weights: folders of tensors and JSON, found by name or path, loaded strictly."""
