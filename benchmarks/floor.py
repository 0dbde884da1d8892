"""The least time that work can take on a machine: counted operations and bytes over the machine's own rates.

What is counted, and what is not:

- Operations are those of convolutions and matrix products, forward and backward, a multiplication and an addition each
  (`torch.utils.flop_counter`).
- Bytes are the activations of convolutions, BatchNorm, linear layers and LayerNorm at two bytes a number (bf16): each
  reads its input and writes its output once; backward it reads the output's gradient and the input, and writes the
  input's gradient where one is wanted. All else (activation functions, residual sums, attention, loss, augmentation)
  counts as fused into these and free. Fusing across these layers too could go below this floor.
- The optimizer reads each gradient, and reads and writes each weight and each of its states, in float32.
- The floor is the larger of the two times, as if one hid the other completely.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmel.config import RunConfig
from mmel.models import build_model

LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.LayerNorm)
BF16_BYTES, FP32_BYTES = 2, 4
# Numbers that an optimizer keeps for each weight.
SGD_STATES, ADAMW_STATES = 1, 2


@dataclass(frozen=True)
class Work:
    """What has to be done.

    Attributes:
        operations: floating-point ones.
        moved: bytes read or written.
    """

    operations: float
    moved: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.operations + other.operations, self.moved + other.moved)

    def __mul__(self, factor: float) -> "Work":
        return Work(self.operations * factor, self.moved * factor)


@dataclass(frozen=True)
class Rates:
    """What a machine can do.

    Attributes:
        operations: of bf16 matrix products, a second.
        moved: bytes read and written by a copy, a second.
    """

    operations: float
    moved: float

    def floor(self, work: Work) -> tuple[float, str]:
        """Seconds that the work takes at least, and which of the two binds."""
        return max((work.operations / self.operations, "operations"), (work.moved / self.moved, "bytes"))


def measure_rates(device: torch.device) -> Rates:
    """The machine's own copy bandwidth and bf16 matmul rate, the best of a few tries each."""
    small = device.type == "cpu"
    source = torch.zeros(2**26 if small else 2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _best_seconds(lambda: target.copy_(source), device)
    side = 1024 if small else 8192
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = _best_seconds(lambda: a @ b, device)
    return Rates(2 * side**3 / product, 2 * len(source) / copy)


def count(model: nn.Module, forward: Callable[[], Tensor]) -> Work:
    """The work of a forward through a model and, where its output wants a gradient, of the backward.

    Args:
        model: its layers are watched.
        forward: calls it; on the meta device nothing is computed, only counted.
    """
    numbers = 0

    def watch(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal numbers
        read, written = inputs[0].numel(), output.numel()
        numbers += read + written
        if output.requires_grad:
            numbers += written + read + (read if inputs[0].requires_grad else 0)

    handles = [module.register_forward_hook(watch) for module in model.modules() if isinstance(module, LAYERS)]
    with FlopCounterMode(display=False) as counter:
        output = forward()
        if output.requires_grad:
            output.sum().backward()
    for handle in handles:
        handle.remove()
    return Work(counter.get_total_flops(), BF16_BYTES * numbers)


def optimizer_step(model: nn.Module, states: int) -> Work:
    """The bytes of one optimizer step; its few operations are not counted."""
    return Work(0, FP32_BYTES * (1 + 2 * (1 + states)) * sum(p.numel() for p in model.parameters()))


def image_step(config: RunConfig) -> Work:
    """One training step of a run on CIFAR."""
    with torch.device("meta"):
        model = build_model(config.model, 10, shortcut=config.shortcut)
        images = torch.empty(config.batch_size * config.num_views, 3, 32, 32)
    return count(model, lambda: model(images)) + optimizer_step(model, SGD_STATES)


def text_step(shape: dict[str, int], lengths: tuple[int, ...], num_augmented: int, batch_size: int) -> Work:
    """One fine-tuning step of a BERT on examples of some lengths, special pieces included, without any padding."""
    from transformers import BertConfig, BertForSequenceClassification

    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(num_labels=2, **shape)).train()
        inputs = [torch.empty(num_augmented, length, dtype=torch.int64) for length in lengths]
    total = sum((count(model, lambda ids=ids: model(input_ids=ids).logits) for ids in inputs), Work(0, 0))
    return total * (batch_size / len(lengths)) + optimizer_step(model, ADAMW_STATES)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best_seconds(function: Callable[[], object], device: torch.device, tries: int = 6, calls: int = 10) -> float:
    """Seconds of one call in the best of a few tries, the first of which warms up."""
    seconds = []
    for _ in range(tries):
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        synchronize(device)
        seconds.append((time.perf_counter() - begin) / calls)
    return min(seconds[1:])
