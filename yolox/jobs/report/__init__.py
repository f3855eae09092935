"""What a report shows of models: figures gathered from checkpoints, files and data."""
