"""Files <-> pictures in [-1, 1]."""
