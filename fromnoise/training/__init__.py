"""Training: one loop for every task. `settings` is light; the other modules need the extra `train`."""
