"""Proof of a cut: the pruned model against the whole one with those channels silenced."""
