"""Estimation of unknown degradations from a picture alone."""
