"""Seeds that depend on the run's seed and on what is drawn, on nothing else."""

import hashlib


def derive_seed(seed: int, *what: str | int) -> int:
    """Return the seed of one draw of a run, below 2^63."""
    text = ":".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
