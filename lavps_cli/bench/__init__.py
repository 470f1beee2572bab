"""Section 5 and Appendix B of the paper: records of restored images, and what follows from them."""
