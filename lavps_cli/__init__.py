"""Restore photographs by diffusion posterior sampling."""

__version__ = "0.1.0"
