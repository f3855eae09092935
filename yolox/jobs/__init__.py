"""What is done with an Exp and a checkpoint: train, prune, quantize, compress, report."""
