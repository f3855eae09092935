"""Which channels belong together: labels that travel with the tensors of a run, and their groups."""
