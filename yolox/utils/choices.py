"""What flags and arguments choose from, and their limits and defaults, at the cost of no import."""

PRECISIONS = ("auto", "fp32", "bf16", "fp16")  # of arithmetic
MOST_SEED = 2**63 - 1  # that PyTorch's and NumPy's generators both take
CONF, NMS = 0.3, 0.45  # of detections to look at: least score, IoU of NMS
TILE_OVERLAP = 200  # of the tiles of large images, pixels
LOGGERS = ("tensorboard", "wandb", "mlflow")  # the first always writes
HOST, PORT = "127.0.0.1", 7860  # of the page to try models on
