"""The commands; the files in tools/ are their doors."""
