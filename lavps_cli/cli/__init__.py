"""The terminal: flags in, text out. No arithmetic, and no torch before a command runs."""
