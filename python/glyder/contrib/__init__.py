"""Schedulers that a finding of ours stands against, which each docstring tells, and an optimizer that torch lacks."""
