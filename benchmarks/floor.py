"""The least time that work can take on a machine: counted operations and bytes over the machine's own rates.

- Operations are those of convolutions and matrix products, forward and backward, a multiplication and an addition each,
  at the rate of bf16 or of float32, whichever is faster on the machine.
- Bytes are the activations of convolutions, BatchNorm, linear layers and LayerNorm, two bytes a number: each reads its
  input and writes its output; backward it reads the output's gradient and the input, and writes the input's gradient if
  one is wanted. All else counts as fused into these and free. Fusing across these layers too could go below this floor.
- The optimizer reads each gradient, and reads and writes each weight and each of its states, in float32.
- The floor is the larger of the two times, as if one hid the other completely.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import seconds_of
from mmel.study.config import ImageRun
from mmel.study.models.resnet import build_model

LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.LayerNorm)
BF16_BYTES, FP32_BYTES = 2, 4
# Numbers that an optimizer keeps for each weight.
SGD_STATES, ADAMW_STATES = 1, 2

# Operations and bytes, of a step or a second.
Pair = np.ndarray


def measure_rates(device: torch.device) -> Pair:
    """The machine's own rate of matrix products and copy bandwidth, the best of a few tries each."""
    small = device.type == "cpu"
    source = torch.zeros(2**26 if small else 2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = 1024 if small else 8192
    factors = [torch.randn(side, side, device=device, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)]
    product = min(_best_seconds(lambda a=a: a @ a) for a in factors)
    return np.array([2 * side**3 / product, 2 * len(source) / _best_seconds(lambda: target.copy_(source))])


def _best_seconds(function: Callable[[], object]) -> float:
    return min(seconds_of(function, calls=10) for _ in range(5))


def describe(rates: Pair) -> str:
    """The rates in words."""
    return f"{rates[0] / 1e9:,.0f} GFLOP/s of matrix products, {rates[1] / 1e9:,.0f} GB/s copied (read and written)"


def least_seconds(work: Pair, rates: Pair) -> tuple[float, str]:
    """Seconds that the work takes at least, and which of the two binds."""
    seconds = work / rates
    return float(seconds.max()), ("operations", "bytes")[int(seconds.argmax())]


def count(model: nn.Module, forward: Callable[[], Tensor]) -> Pair:
    """The work of a forward through a model and, if its output wants a gradient, of the backward."""
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
    return np.array([counter.get_total_flops(), BF16_BYTES * numbers])


def optimizer_step(model: nn.Module, states: int) -> Pair:
    """The bytes of one optimizer step; its few operations are not counted."""
    return np.array([0, FP32_BYTES * (1 + 2 * (1 + states)) * sum(p.numel() for p in model.parameters())])


def image_step(config: ImageRun) -> Pair:
    """One training step of a run on CIFAR."""
    with torch.device("meta"):
        model = build_model(config.model, 10, shortcut=config.shortcut)
        images = torch.empty(config.batch_size * config.num_views, 3, 32, 32)
    return count(model, lambda: model(images)) + optimizer_step(model, SGD_STATES)


def text_step(shape: dict[str, int], lengths: tuple[int, ...], num_augmented: int, batch_size: int) -> Pair:
    """One fine-tuning step of a BERT on examples of some lengths, special pieces included, without any padding."""
    from transformers import BertConfig, BertForSequenceClassification

    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(num_labels=2, **shape)).train()
        inputs = [torch.empty(num_augmented, length, dtype=torch.int64) for length in lengths]
    mean = sum(count(model, lambda ids=ids: model(input_ids=ids).logits) for ids in inputs) / len(lengths)
    return batch_size * mean + optimizer_step(model, ADAMW_STATES)
