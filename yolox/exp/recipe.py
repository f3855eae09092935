"""The fields of a recipe: name, type, default, meaning. Sizes are (height, width)."""

from __future__ import annotations

from yolox.exp.fields import Fields


class Recipe(Fields):
    """What a training run is told; `yolox.exp.Exp` builds from it."""

    # model
    architecture: str = "yolox"  # architecture of the model: yolox or yolov3
    num_classes: int = 80  # number of classes; follows class_names, so it need not be set
    depth: float = 1.0  # multiplier of the number of blocks in each stage
    width: float = 1.0  # multiplier of the number of channels
    act: str = "silu"  # activation: silu, mish, relu or lrelu
    depthwise: bool = False  # use depthwise-separable 3 × 3 convolutions
    # activation for fine-tuning a pruned model; empty keeps the one that it has
    finetune_act: str = ""
    finetune_lr: float = 2.0  # factor on basic_lr_per_img for fine-tuning a pruned model
    finetune_epochs: int = 0  # epochs of fine-tuning a pruned model; 0 takes max_epoch

    # data
    data_dir: str | None = ""  # folder of the data set; empty for the default folder in datasets/
    train_ann: str = "instances_train2017.json"  # annotation file of the training images
    val_ann: str = "instances_val2017.json"  # annotation file of the evaluation images
    test_ann: str = "instances_test2017.json"  # annotation file of the test images
    train_name: str = "train2017"  # folder of the training images
    val_name: str = "val2017"  # folder of the evaluation images
    test_name: str = "test2017"  # folder of the test images
    # class names in the order of the class ids; empty takes them from the data
    class_names: tuple[str, ...] = ()
    # height and width in training, in pixels, multiples of 32
    input_size: tuple[int, int] = (640, 640)
    # training sizes differ from input_size by up to this many steps of 32 pixels
    multiscale_range: int = 5
    # smallest and largest height in steps of 32 pixels; replaces multiscale_range
    random_size: tuple[int, ...] = ()
    max_labels: int = 0  # the most objects of an image or mosaic that training uses; 0 for all
    data_num_workers: int = 4  # number of processes that load images

    # augmentation
    mosaic_prob: float = 1.0  # probability of a mosaic of four images
    mixup_prob: float = 1.0  # probability of blending a mosaic with another image
    hsv_prob: float = 1.0  # probability of changing the colours
    flip_prob: float = 0.5  # probability of mirroring left to right
    degrees: float = 10.0  # largest rotation in either direction, in degrees
    translate: float = 0.1  # largest shift in either direction, as a fraction of a side
    mosaic_scale: tuple[float, float] = (0.1, 2.0)  # range of the scale of a mosaic
    enable_mixup: bool = True  # whether mosaics are blended with another image at all
    mixup_scale: tuple[float, float] = (0.5, 1.5)  # range of the scale of that other image
    shear: float = 2.0  # largest shear in either direction, in degrees

    # training
    batch_size: int = 64  # number of images in a step, of all processes together
    warmup_epochs: float = 5.0  # number of epochs in which the learning rate rises
    max_epoch: int = 300  # number of epochs
    warmup_lr: float = 0.0  # learning rate at the start of the warm-up
    min_lr_ratio: float = 0.05  # last learning rate, as a fraction of the highest
    basic_lr_per_img: float = 0.01 / 64  # learning rate for each image of the batch
    # learning rate schedule: yoloxwarmcos, warmcos, cos or multistep
    scheduler: str = "yoloxwarmcos"
    # epochs after each of which multistep makes the learning rate a tenth of what it was
    milestones: tuple[float, ...] = ()
    no_aug_epochs: int = 15  # number of last epochs without mosaic and with the L1 loss
    accumulate: int = 1  # number of batches whose gradients make one step
    ema: bool = True  # evaluate and save a moving average of the weights
    ema_decay: float = 0.9998  # decay of that moving average
    # measure batch-norm statistics again before each evaluation, see below
    retake_statistics: bool = False
    weight_decay: float = 5e-4  # weight decay of convolution weights
    momentum: float = 0.9  # Nesterov momentum of SGD
    seed: int | None = 0  # seed of all random choices of the run
    print_interval: int = 10  # number of steps between two lines of the log
    eval_interval: int = 10  # number of epochs between two evaluations
    save_history_ckpt: bool = False  # keep a checkpoint of every evaluated epoch
    output_dir: str = "YOLOX_outputs"  # folder of all runs
    exp_name: str = "yolox"  # name of this run's folder in output_dir

    # distillation
    distill_cls: float = 1.0  # weight of the teacher's class scores in the loss
    distill_obj: float = 1.0  # weight of the teacher's objectness in the loss
    distill_box: float = 1.0  # weight of the teacher's boxes in the loss
    distill_feature: float = 1.0  # weight of the teacher's feature maps in the loss
    # temperature of the softmax over the positions of a feature map
    distill_temperature: float = 1.0

    # sparsity training
    sparsity: float = 0.0  # strength of the penalty on batch-norm scales; 0 switches it off
    # l1, or group: channels that are pruned together are penalized together
    sparsity_form: str = "l1"
    sparsity_schedule: str = "constant"  # strength over the run: constant, linear or step
    sparsity_warmup: float = 0.0  # fraction of the run in which the strength rises from 0
    sparsity_shift: float = 0.0  # strength of the same penalty on batch-norm shifts
    sparsity_proximal: bool = True  # stop scales exactly at 0 instead of swinging around it

    # evaluation
    # height and width in evaluation, in pixels, multiples of 32
    test_size: tuple[int, int] = (640, 640)
    test_conf: float = 0.01  # lowest score of a detection
    nmsthre: float = 0.65  # IoU above which NMS removes the weaker of two boxes of a class
