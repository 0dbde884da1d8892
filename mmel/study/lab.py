"""The lab: the paper's question on small real data with many seeds, as `results/lab/PLAN.md` fixes it beforehand.

Standard library only. A cell is a training set with its recipe, an arm a way to train on it, a contrast one arm less
another in one cell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmel.study.config import ImageRun

# Accuracy points that matter, as in the claims of the paper.
MARGIN = 0.2
# Seeds of profile `reduced`; where the pilot's spread is widest, the arms of the primary contrasts have more.
SEEDS, SEEDS_OF_PRIMARY, SEEDS_OF_CIFAR = 40, 100, 8
BATCH_SIZE = 50
_DIGITS = {"dataset": "digits", "model": "resnet8", "augment": "crop", "num_augmented": 5, "precision": "fp32"}

DA, LONG, UNI = "Baseline(DA)", "Baseline(DA+Long)", "Baseline(DA+UNI)"
H, S, SAMPLED, CVAR, CHI_SQUARE = "MMEL-H", "MMEL-S", "MMEL-H, sampled", "CVaR", "chi-square"
S_EQUAL, UNI_DOUBLED = "MMEL-S, equal weights", "Baseline(DA+UNI), loss doubled"
LAMBDAS = {value: f"MMEL-H, lambda_P = {value:g}" for value in (0.1, 0.3, 3.0, 10.0)}
VIEWS = {(method, k): f"{method}, K = {k}" for method in (UNI, H) for k in (2, 10, 20)}

# Fields of a run that tell an arm from MMEL-H with lambda_P = 1 and K = 5.
ARMS: dict[str, dict[str, Any]] = {
    DA: {"method": "baseline_da"},
    LONG: {"method": "baseline_da_long"},
    UNI: {"method": "baseline_da_uni"},
    H: {"method": "mmel_h"},
    S: {"method": "mmel_s"},
    # So large a lambda_P makes weights equal to 1 % of themselves if losses differ by at most 10.
    S_EQUAL: {"method": "mmel_s", "lambda_p": 1000.0},
    # Of SGD: p - 0.1 (2 g + 5e-4 p) = p - 0.2 (g + 2.5e-4 p); with momentum and decays too, which are linear.
    UNI_DOUBLED: {"method": "baseline_da_uni", "lr": 0.2, "weight_decay": 2.5e-4},
    **{name: {"method": "mmel_h", "lambda_p": value} for value, name in LAMBDAS.items()},
    # As many effective views, 4.2 of 5, as lambda_P = 0.1 had on average in the pilot.
    CVAR: {"method": "cvar", "alpha": 0.8},
    CHI_SQUARE: {"method": "chi_square", "rho": 0.1},
    **{
        name: {"method": "mmel_h" if method == H else "baseline_da_uni", "num_augmented": k}
        for (method, k), name in VIEWS.items()
    },
    SAMPLED: {"method": "mmel_h", "backward": "sampled"},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A training set with its recipe, and the arms that are trained on it.

    Attributes:
        label: in tables and figures.
        fields: of its runs.
        arms: names in `ARMS`.
        seeds: of each arm in profile `reduced`.
        many: those arms that have `SEEDS_OF_PRIMARY` seeds.
    """

    label: str
    fields: Mapping[str, Any]
    arms: tuple[str, ...]
    seeds: int = SEEDS
    many: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A contrast that the plan fixes: the accuracy of arm `a` less that of arm `b` in a cell, paired by seed.

    Attributes:
        question: number of the question in the plan.
        cell: its name in `CELLS`.
        a: an arm of the cell.
        b: another one.
        direction: of the statement that is tested, as in `mmel.study.report.claims.verdict`.
        primary: whether it is one of those that share Holm's correction: question 6 has its own, the others one.
    """

    question: int
    cell: str
    a: str
    b: str
    direction: str = ">"
    primary: bool = False


def _fields(train_size: int, epochs: int, **more: Any) -> dict[str, Any]:
    decays = tuple(round(share * epochs) for share in (0.3, 0.6, 0.8))
    held_out = {"train_size": train_size, "holdout": 1000} if train_size else {}
    recipe = {"epochs": epochs, "decay_epochs": decays, "epochs_per_eval": epochs // 5, "batch_size": BATCH_SIZE}
    return _DIGITS | held_out | recipe | more


_CIFAR = {
    **{"dataset": "cifar100", "model": "resnet8", "num_augmented": 5, "train_size": 10_000, "precision": "fp32"},
    **{"epochs": 12, "decay_epochs": (4, 7, 10), "epochs_per_eval": 2, "batch_size": 32},
}
_FIVE = (DA, LONG, UNI, H, S)
# Between equal weights and MMEL-S.
_PARTS = (S_EQUAL, UNI_DOUBLED)
_FAMILY = (*LAMBDAS.values(), CVAR, CHI_SQUARE)
CELLS = {
    "digits100": Cell(
        label="100 digits",
        fields=_fields(100, 60),
        arms=(*_FIVE, *_PARTS, *_FAMILY, *VIEWS.values(), SAMPLED),
        many=(UNI, H, S, *_PARTS),
    ),
    "digits300": Cell(label="300 digits", fields=_fields(300, 40), arms=(*_FIVE, *_PARTS, *_FAMILY, SAMPLED)),
    "digits1437": Cell(label="1,437 digits", fields=_fields(0, 15, batch_size=128), arms=(*_FIVE, *_PARTS, SAMPLED)),
    "wrong300": Cell(
        label="300 digits, 20 % of the labels wrong",
        fields=_fields(300, 40, wrong_labels=0.2),
        arms=(DA, UNI, H, S, *_PARTS, LAMBDAS[0.1]),
    ),
    "cifar100": Cell(label="CIFAR-100, 10,000 images", fields=_CIFAR, arms=(DA, UNI, H, S), seeds=SEEDS_OF_CIFAR),
}
_CLEAN = ("digits100", "digits300", "digits1437")

CONTRASTS = (
    *(Contrast(question=1, cell=cell, a=a, b=UNI, primary=True) for cell in _CLEAN for a in (H, S)),
    *(Contrast(question=1, cell=cell, a=a, b=LONG, direction=">=") for cell in _CLEAN for a in (UNI, H, S)),
    *(Contrast(question=1, cell=cell, a=UNI, b=DA) for cell in _CLEAN),
    *(Contrast(question=2, cell=cell, a=a, b=UNI) for cell in _CLEAN[:2] for a in _FAMILY),
    *(Contrast(question=2, cell=cell, a=LAMBDAS[0.1], b=H) for cell in _CLEAN[:2]),
    *(
        Contrast(question=2, cell=cell, a=a, b=LAMBDAS[0.1], direction="=")
        for cell in _CLEAN[:2]
        for a in (CVAR, CHI_SQUARE)
    ),
    *(Contrast(question=3, cell="digits100", a=VIEWS[H, k], b=VIEWS[UNI, k]) for k in (2, 10, 20)),
    Contrast(question=3, cell="digits100", a=H, b=VIEWS[H, 2]),
    Contrast(question=3, cell="digits100", a=VIEWS[H, 10], b=H, direction="="),
    Contrast(question=3, cell="digits100", a=VIEWS[H, 20], b=VIEWS[H, 10], direction="="),
    *(Contrast(question=4, cell="wrong300", a=a, b=UNI, direction="<", primary=True) for a in (H, S)),
    Contrast(question=4, cell="wrong300", a=LAMBDAS[0.1], b=UNI, direction="<"),
    Contrast(question=4, cell="wrong300", a=UNI, b=DA),
    *(Contrast(question=5, cell=cell, a=SAMPLED, b=H, direction=">=") for cell in _CLEAN),
    *(Contrast(question=5, cell=cell, a=SAMPLED, b=UNI) for cell in _CLEAN),
    *(Contrast(question=6, cell="cifar100", a=a, b=UNI, primary=True) for a in (H, S)),
    *(Contrast(question=6, cell="cifar100", a=a, b=DA) for a in (UNI, H, S)),
    *(
        Contrast(question=7, cell=cell, a=a, b=b)
        for a, b in ((S, S_EQUAL), (S_EQUAL, UNI_DOUBLED), (UNI_DOUBLED, UNI))
        for cell in (*_CLEAN, "wrong300")
    ),
)


def runs_of_arm(cell: str, arm: str, profile: str = "reduced") -> list[ImageRun]:
    """The runs of an arm in a cell, one for each seed; of profile `mini` two short ones."""
    spec, fields = CELLS[cell], dict(ARMS[arm])
    method, recipe = fields.pop("method"), {"profile": "reduced", **spec.fields}
    number = SEEDS_OF_PRIMARY if arm in spec.many else spec.seeds
    if profile == "mini":
        recipe |= {"profile": "mini", "epochs": 5, "decay_epochs": (2, 4), "epochs_per_eval": 1}
        number = 2
    runs = []
    for seed in range(number):
        # A subset of its own for each seed, so that the answer is not about one subset.
        draw = {"subset_seed": seed} if spec.fields.get("train_size") else {}
        base = ImageRun(method="mmel_s", **recipe | draw).with_method(method, seed)
        runs.append(base.replace(**fields, epochs_per_eval=base.epochs_per_eval * base.stretch))
    return runs


def grid(profile: str, text_model: str | None = None) -> list[ImageRun]:
    """All runs of the lab; a table's grid. `mini` has one training set, and `paper` nothing: digits are no paper's."""
    cells = {"mini": ["digits100"], "reduced": CELLS, "paper": ()}[profile]
    return [run for cell in cells for arm in CELLS[cell].arms for run in runs_of_arm(cell, arm, profile)]
