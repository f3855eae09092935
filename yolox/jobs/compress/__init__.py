"""From a trained checkpoint to a small, fine-tuned, exported, measured model, in stages."""
