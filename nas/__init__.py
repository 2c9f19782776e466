"""Search over any space of choices: a tuner, its ranking, and scores that need no training."""
