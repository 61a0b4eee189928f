"""Training: synthetic brackets, datasets, losses and the loop that uses them."""
