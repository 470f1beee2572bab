"""Weights of other projects, one reader each: what a file or folder holds, as a model of ours."""
