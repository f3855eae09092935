"""From a checkpoint to a small, fine-tuned, exported, measured model, in stages that resume."""
