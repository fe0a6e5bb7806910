"""Torch's optimizers: what is known of them, their groups, and what a step of theirs did."""
