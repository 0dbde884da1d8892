"""The runs behind each table: profile -> list of RunConfig. Standard library only."""

from collections.abc import Callable

from mmel.config import METHODS, PROFILES, RunConfig

# Seeds of the runs that choose a hyperparameter, apart from those whose results are reported.
SELECTION_SEED = 1000
LAMBDA_T_CANDIDATES = (0.5, 1.0, 2.0)
HOLDOUT = 5000

PAPER_MODELS = ("resnet20", "resnet32", "resnet44", "resnet56")


def table1(profile: str) -> list[RunConfig]:
    """Table 1: five methods on ResNets of several depths, K fixed."""
    runs: list[RunConfig] = []
    for base in _image_bases(profile):
        for method in METHODS:
            # The paper trains Baseline(DA+Long) once, "which is slow in training"; so do `reduced` and `paper`.
            seeds = SEEDS[profile][:1] if method == "baseline_da_long" and profile != "mini" else SEEDS[profile]
            runs += _with_selection([with_method(base, method, base.num_augmented, seed) for seed in seeds])
    return runs


def table2(profile: str) -> list[RunConfig]:
    """Table 2: MMEL-H and MMEL-S for several K, beside Baseline(DA)."""
    bases = _image_bases(profile)
    if profile == "mini":
        bases = bases[:1]
    runs: list[RunConfig] = []
    for base in bases:
        runs += [with_method(base, "baseline_da", 1, seed) for seed in SEEDS[profile]]
        for k in (2, 5, 10, 20):
            for method in ("mmel_h", "mmel_s"):
                runs += _with_selection([with_method(base, method, k, seed) for seed in SEEDS[profile]])
    # One choice of lambda_t serves every K.
    return list(dict.fromkeys(runs))


SEEDS = {"mini": (0, 1), "reduced": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}
TABLES: dict[str, Callable[[str], list[RunConfig]]] = {"table1": table1, "table2": table2}


def runs_of(tables: list[str], profile: str) -> list[RunConfig]:
    """The runs of several tables, each once, in the order in which they should be trained.

    Raises:
        ValueError: on a table or profile that does not exist.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    unknown = [table for table in tables if table not in TABLES]
    if unknown:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, got {', '.join(unknown)}")
    runs = [run for table in tables for run in TABLES[table](profile)]
    # Seed by seed: whenever a sweep stops, what is there is as balanced as it can be. The sort is stable, and the
    # runs that choose lambda_t come before all others.
    return sorted(dict.fromkeys(runs), key=lambda run: (not run.holdout, run.seed))


def with_method(base: RunConfig, method: str, num_augmented: int, seed: int) -> RunConfig:
    """`base` trained by `method`, with the fields that the method does not have at their neutral value."""
    return base.replace(
        method=method,
        seed=seed,
        num_augmented=1 if method == "baseline_da" else num_augmented,
        lambda_p=base.lambda_p if method in ("mmel_h", "mmel_s") else 1.0,
        lambda_t=base.lambda_t if method == "mmel_s" else 1.0,
    )


def lambda_t_candidates(config: RunConfig) -> list[RunConfig]:
    """The runs that choose lambda_t for `config` (section 4.1): {0.5, 1, 2}, K = 10, 5,000 training images held out."""
    base = config.replace(method="mmel_s", num_augmented=10, seed=SELECTION_SEED, lambda_t=1.0, holdout=HOLDOUT)
    return [base.replace(lambda_t=value) for value in LAMBDA_T_CANDIDATES]


def _with_selection(runs: list[RunConfig]) -> list[RunConfig]:
    """`runs`, preceded by those that choose their lambda_t where it is left to be chosen."""
    first = [choice for run in runs if run.lambda_t == 0 for choice in lambda_t_candidates(run)]
    return [*dict.fromkeys(first), *runs]


def _image_bases(profile: str) -> list[RunConfig]:
    """One configuration for each data set and model of Tables 1 and 2, still without method, K or seed."""
    if profile == "mini":
        recipe = {
            "train_size": 500,
            "batch_size": 64,
            "epochs": 20,
            "decay_epochs": (6, 12, 16),
            "augment": "crop",
            "num_augmented": 5,
        }
        grid = [("digits", model) for model in ("resnet8", "resnet14")]
    elif profile == "reduced":
        # A balanced tenth of CIFAR-10 and a tenth of the epochs, the decays at the paper's fractions of training.
        recipe = {"epochs": 20, "decay_epochs": (6, 12, 16), "train_size": 5000, "num_augmented": 5}
        grid = [("cifar10", "resnet20")]
    else:
        recipe = {}
        grid = [(dataset, model) for dataset in ("cifar10", "cifar100") for model in PAPER_MODELS]
    # lambda_t is chosen on held-out images at paper scale alone; 0 stands for that.
    lambda_t = 0.0 if profile == "paper" else 1.0
    return [
        RunConfig(profile=profile, dataset=dataset, model=model, method="mmel_s", lambda_t=lambda_t, **recipe)
        for dataset, model in grid
    ]
