"""Restore photographs by sampling from the posterior of a diffusion prior."""

__version__ = "0.1.0"
