"""Exp files as people wrote them for the official package, unchanged but for their data."""
