"""Luma and colour differences (ITU-R BT.601), as JPEG and Pillow mix them."""

LUMA = (0.299, 0.587, 0.114)
YCBCR = (LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Rows: luma, and how much bluer and redder a colour is."""
