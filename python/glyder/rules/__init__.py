"""The schedulers of one published rule each, and what they have in common."""
