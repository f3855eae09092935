"""Which channels belong together: labels that travel with a run's tensors, and groups of them."""
