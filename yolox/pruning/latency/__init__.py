"""Pruning to a measured latency: tables of layers, plans that meet a target, what was measured."""
