"""What schedulers are made of: the optimizer's hooks, searches, stages, history and checkpoints."""
