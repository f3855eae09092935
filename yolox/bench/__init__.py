"""Timing of models in their runtimes: what to run, the runs, memory, results, single layers."""
