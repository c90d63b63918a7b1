"""How likely each label is wrong, and how much it counts."""
