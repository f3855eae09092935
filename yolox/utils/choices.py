"""What flags and arguments choose from, and their limits and defaults, at the cost of no import."""

PRECISIONS = ("auto", "fp32", "bf16", "fp16")  # of arithmetic
MAX_SEED = 2**63 - 1  # that PyTorch's and NumPy's generators both take
CONF, NMS = 0.3, 0.45  # of detections to look at: least score, IoU of NMS
DETECTION_LIMIT = 100  # of a class in an image, by score, that COCO's rule looks at
TILE_OVERLAP = 200  # of the tiles of large images, pixels
SAVE_EVERY = 10.0  # minutes in an epoch, of a training
LOGGERS = ("tensorboard", "wandb", "mlflow")  # the first always writes
HOST, PORT = "127.0.0.1", 7860  # of the page to try models on
# Of an analysis by layer: what is measured, fractions of a layer's channels, what a layer may cost.
METRICS = {"ap": "AP50-95", "loss": "loss"}
LAYER_RATIOS = (0.1, 0.3, 0.5, 0.7)
AP_TOLERANCE = 0.01  # a point of AP
LOSS_TOLERANCE = 0.02  # of the whole model's loss
COMPARED_RUNS = 30  # timed, of each model that is compared
PAIRED_DRAWS = 1000  # of the images, to tell whether a difference in AP is real
LATENCY_RUNTIME = "onnxruntime"  # that a target in latency is met in where none is named
# Of sparsity training: what is penalised, and how over a run.
FORMS = ("l1", "group")
SCHEDULES = ("constant", "linear", "step")
SPARSITY_EPOCHS, STEP_EPOCHS, TUNING_EPOCHS = 20, 5, 20  # of a compression's trainings
CALIBRATION_IMAGES = 128  # that quantization measures ranges on
