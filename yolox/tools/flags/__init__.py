"""What each command line takes. Nothing here imports what takes long, so that help is instant."""
