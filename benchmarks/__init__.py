"""What glyder's learning rates are worth, and what they cost: see README.md beside this file."""
