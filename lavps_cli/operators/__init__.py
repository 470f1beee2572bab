"""The degradations of Section 5 and Appendix B, one per file; each is an `Operator` of core."""
