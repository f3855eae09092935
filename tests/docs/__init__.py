"""The pages: what they show runs, and what they name is there."""
