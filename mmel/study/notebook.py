"""The calls that run notebooks share: their parameters as a run, and the run in words."""

from collections.abc import Mapping
from typing import Any

from mmel.study.config import LR_DECAY, Run

# The types of a notebook's parameters, and IPython's own names of such types without an underscore.
PLAIN_TYPES = (bool, int, float, str, list, tuple, dict, type(None))
IPYTHON_NAMES = ("In", "Out")


def from_parameters(kind: type[Run], namespace: Mapping[str, Any]) -> Run:
    """The run that a notebook's parameters spell out, in the notebook's `globals()`.

    papermill only logs a parameter that the notebook does not have. So a number, text or list under another name is
    refused, until the notebook holds a run: the names that a person adds after that are left alone.

    Args:
        kind: `ImageRun` or `TextRun`.
        namespace: names and values.

    Raises:
        ValueError: if there is such a name, or as the class does.
    """
    known = kind.field_names()
    if not any(isinstance(value, Run) for value in namespace.values()):
        unknown = [
            name
            for name, value in namespace.items()
            if name not in (*known, *IPYTHON_NAMES) and not name.startswith("_") and isinstance(value, PLAIN_TYPES)
        ]
        if unknown:
            names = ", ".join(unknown)
            raise ValueError(f"unknown parameter(s) {names} (mended? `del {names}`); a run has {', '.join(known)}")
    return kind(**{name: namespace[name] for name in known if name in namespace})


def describe(run: Run) -> str:
    """The method's objective and the recipe of a run, in Markdown."""
    k = run.num_augmented
    target = "y_z" if run.is_text and run.label_source == "predicted" else "y"
    objective = run.plan.objective.format(loss=rf"\ell(f_\theta(z), {target})", k=k)
    if run.is_text:
        decay = "falling linearly to 0"
    else:
        decay = f"times {LR_DECAY:g} after epochs {', '.join(map(str, run.total_decay_epochs)) or 'none'}"
    return (
        f"**{run.plan.label}** on `{run.dataset}` with `{run.model}`, seed {run.seed}: minimize {objective}.\n\n"
        f"Profile `{run.profile}`: {run.total_epochs} epochs of batch {run.batch_size}, learning rate {run.lr:g} "
        f"{decay}, weight decay {run.weight_decay:g}, K = {k}, lambda_P = {run.lambda_p:g}, precision "
        f"{run.precision}.{_augmentation(run)} Run `{run.run_id}`."
    )


def _augmentation(run: Run) -> str:
    if not run.is_text or not run.plan.augments:
        return ""
    targets = "their example's label" if run.label_source == "original" else "the teacher's output"
    pairs = ""
    if run.data.is_pair:
        pairs = ", the sentences of a pair " + ("one by one" if run.pair_mode == "separate" else "as one text")
    return f" Algorithm 2: {run.fill}, {run.mask_ratio:.0%} of the pieces{pairs}; targets are {targets}."


def legend(run: Run) -> str:
    """The reading, in Markdown, of the example that `mmel.study.train.look` shows of a run."""
    kind, first = "image", "*x* is the untouched image."
    if run.is_text:
        kind, first = "text", "The original comes first."
    if run.is_text and run.plan.augments:
        first += " Its masked pieces stand in brackets; the masked language model may have put the same piece back."
        first += " `target` is the goal of the training"
        first += "." if run.label_source == "original" else ", `teacher` the teacher's output on each view."
    if run.plan.soft_targets:
        weighed = f"{run.plan.label} pulls the other views to $f(x)$ and does not weigh *x* itself. "
    else:
        none = f"{run.plan.label} weighs otherwise, if at all: shown are the weights that MMEL-H would give. "
        weighed = "" if run.method == "mmel_h" else none
    return (
        f"Of the first hundred training {kind}s the one with the most unequal weights $P^*(z \\mid x)$: the larger the "
        f"loss of a view, the larger its weight. {weighed}{first}"
    )
