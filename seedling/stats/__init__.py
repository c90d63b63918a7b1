"""Intervals, paired comparisons and seeded randomness."""
