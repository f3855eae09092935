"""The fields of a recipe: name, type, default, meaning. Sizes are (height, width)."""

from __future__ import annotations

from yolox.exp.fields import Fields


class Recipe(Fields):
    """What a training run is told; `yolox.exp.Exp` builds from it."""

    # model
    architecture: str = "yolox"  # yolox or yolov3
    num_classes: int = 80  # of the data; follows class_names
    depth: float = 1.0  # multiplier of the blocks a stage
    width: float = 1.0  # multiplier of the channels
    act: str = "silu"  # activation: silu, mish, relu or lrelu
    depthwise: bool = False  # depthwise-separable 3 × 3 convolutions
    # activation of a pruned model when it is fine-tuned; empty keeps its own
    finetune_act: str = ""
    finetune_lr: float = 1.0  # factor on basic_lr_per_img when a pruned model is fine-tuned
    finetune_epochs: int = 0  # epochs of fine-tuning a pruned model; 0 for max_epoch

    # data
    data_dir: str | None = ""  # folder of the data; empty for the default place, datasets/
    train_ann: str = "instances_train2017.json"  # annotation file of the training images
    val_ann: str = "instances_val2017.json"  # annotation file of the evaluation images
    test_ann: str = "instances_test2017.json"  # annotation file of the test images
    train_name: str = "train2017"  # folder of the training images
    val_name: str = "val2017"  # folder of the evaluation images
    test_name: str = "test2017"  # folder of the test images
    # names in the order of the class ids; empty takes them from the data
    class_names: tuple[str, ...] = ()
    # height and width in training, pixels, multiples of 32
    input_size: tuple[int, int] = (640, 640)
    multiscale_range: int = 5  # sizes differ by up to this many strides of 32 either way
    random_size: tuple[int, ...] = ()  # in its place: smallest and largest height, in strides of 32
    max_labels: int = 0  # objects of an image or mosaic that training keeps; 0 for all
    data_num_workers: int = 4  # processes that load images

    # augmentation
    mosaic_prob: float = 1.0  # probability of a mosaic of four images
    mixup_prob: float = 1.0  # probability of blending a mosaic with a second image
    hsv_prob: float = 1.0  # probability of changing colours
    flip_prob: float = 0.5  # probability of mirroring left to right
    degrees: float = 10.0  # rotation, degrees, up to this either way
    translate: float = 0.1  # shift, up to this fraction of a side either way
    mosaic_scale: tuple[float, float] = (0.1, 2.0)  # range of the scale of a mosaic
    enable_mixup: bool = True  # blend mosaics with a second image at all
    mixup_scale: tuple[float, float] = (0.5, 1.5)  # range of the scale of that image
    shear: float = 2.0  # shear, degrees, up to this either way

    # training
    batch_size: int = 64  # images a step, of all processes together
    warmup_epochs: float = 5.0  # epochs in which the learning rate rises
    max_epoch: int = 300  # epochs
    warmup_lr: float = 0.0  # learning rate that it rises from
    min_lr_ratio: float = 0.05  # last learning rate, as a fraction of the highest
    basic_lr_per_img: float = 0.01 / 64  # learning rate for one image of the batch
    scheduler: str = "yoloxwarmcos"  # yoloxwarmcos, warmcos, cos or multistep
    no_aug_epochs: int = 15  # last epochs, without mosaic and with the L1 loss
    accumulate: int = 1  # batches whose gradients make one step
    ema: bool = True  # keep, evaluate and save an average of the weights
    ema_decay: float = 0.9998  # of that average
    # evaluate and save with statistics of batch norms taken anew, see below
    retake_statistics: bool = False
    weight_decay: float = 5e-4  # of convolution weights
    momentum: float = 0.9  # of SGD, Nesterov's
    seed: int | None = 0  # decides the run
    print_interval: int = 10  # steps between two lines of the log
    eval_interval: int = 10  # epochs between two evaluations
    save_history_ckpt: bool = False  # keep a checkpoint of every evaluated epoch
    output_dir: str = "YOLOX_outputs"  # folder of all runs
    exp_name: str = "yolox"  # folder of this run in it

    # distillation
    distill_cls: float = 1.0  # weight of a teacher's class scores in the loss
    distill_obj: float = 1.0  # weight of a teacher's objectness
    distill_box: float = 1.0  # weight of a teacher's boxes
    distill_feature: float = 1.0  # weight of a teacher's feature maps
    distill_temperature: float = 1.0  # of the softmax over the positions of a feature map

    # sparsity training
    sparsity: float = 0.0  # strength of the penalty on scales of batch norms; 0 for none
    sparsity_form: str = "l1"  # l1, or group: coupled channels together
    sparsity_schedule: str = "constant"  # constant, linear or step over the run
    sparsity_warmup: float = 0.0  # fraction of the run in which it rises from 0
    sparsity_shift: float = 0.0  # strength of the same penalty on the shifts
    sparsity_proximal: bool = True  # stop at 0, rather than swing around it

    # evaluation
    # height and width in evaluation, pixels, multiples of 32
    test_size: tuple[int, int] = (640, 640)
    test_conf: float = 0.01  # least score of a detection
    nmsthre: float = 0.65  # IoU above which the weaker of two boxes of a class goes
