"""The names that may stand in a run's configuration, and which fields go with what. Standard library only."""

PROFILES = ("mini", "reduced", "paper")
IMAGE_METHODS = ("baseline_da", "baseline_da_long", "baseline_da_uni", "mmel_h", "mmel_s")
TEXT_METHODS = ("baseline", "baseline_da_long", "baseline_da_uni", "mmel_h", "mmel_s")
METHODS = ("baseline", *IMAGE_METHODS)
PRECISIONS = ("auto", "bf16", "fp32")
ORIGINALS = ("clean", "augmented")
SHORTCUTS = ("A", "B")
# Of classes and probabilities; scores have the squared error.
CLASS_LOSSES = ("cross_entropy", "kl")
# The loaders and builders behind these names live in mmel.data and mmel.models.
SMALL_IMAGE_DATASETS = ("cifar10", "cifar100", "digits")
# Images that are decoded step by step, and the pixels of a side that their views have by default.
ENCODED_IMAGE_SIZES = {"imagenet": 224, "imagenette": 224, "drawings": 64}
IMAGE_DATASETS = (*SMALL_IMAGE_DATASETS, *ENCODED_IMAGE_SIZES)
GLUE_DATASETS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
GRAMMAR_DATASETS = tuple(f"grammar_{name}" for name in GLUE_DATASETS)
TEXT_DATASETS = (*GLUE_DATASETS, *GRAMMAR_DATASETS)
# Small data sets made, or chosen, for `mini`: nothing of the paper's.
EMBEDDED_DATASETS = ("digits", "drawings", *GRAMMAR_DATASETS)
REGRESSION_DATASETS = ("stsb", "grammar_stsb")
DATASETS = (*IMAGE_DATASETS, *TEXT_DATASETS)
CIFAR_MODELS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56")
IMAGENET_MODELS = ("resnet18", "resnet34", "resnet50", "resnet18_narrow")
IMAGE_MODELS = (*CIFAR_MODELS, *IMAGENET_MODELS)
# Beside these a run may name any transform of torchvision.transforms.v2 that needs no arguments: `v2.AugMix`.
SMALL_IMAGE_AUGMENTATIONS = ("crop_flip", "crop", "cutout", "randaugment", "trivialaugment")
# Two of them have names of their own.
TRANSFORMS = {"randaugment": "RandAugment", "trivialaugment": "TrivialAugmentWide"}
ENCODED_IMAGE_AUGMENTATIONS = ("resized_crop_flip",)
FILLS = ("greedy", "beam")
PAIR_MODES = ("separate", "joint")
LABEL_SOURCES = ("predicted", "original")

# What a field stands at when its value is to be chosen by runs of its own (`mmel.prerequisites.candidates`).
CHOSEN_LAMBDA_T = 0.0
CHOSEN_DROPOUT = -1.0

ONE_VIEW_METHODS = ("baseline", "baseline_da", "baseline_da_long")
# Fields that mean nothing for the other kind of data stay at their default there, so that one run has one name.
_SGD_FIELDS = ("decay_epochs", "lr_decay", "momentum", "nesterov")
IMAGE_FIELDS = (
    *_SGD_FIELDS,
    *("augment", "original", "redraw", "shortcut", "image_size", "holdout", "sync_batch_norm"),
)
AUGMENTED_TEXT_FIELDS = ("mask_ratio", "fill", "beam_width", "pair_mode", "augment_seed", "label_source")
TEXT_FIELDS = (*AUGMENTED_TEXT_FIELDS, "threshold", "max_length", "hidden_dropout", "attention_dropout")
# Fields that only MMEL-S has.
SOFT_FIELDS = ("lambda_t", "target_gradient", "threshold")
