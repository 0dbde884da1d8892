"""A function of tensors as one CUDA graph, captured at its first call and replayed at every later one."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mmel.study.train import processes

# Runs before the capture, in which cuDNN and cuBLAS choose their kernels; PyTorch's notes on CUDA graphs ask for them.
WARM_UP_RUNS = 3


class CudaGraph:
    """The calls that `Captured` makes of CUDA; tests put another class in its place."""

    def __init__(self, device: torch.device):
        self._device = device
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], Any]) -> Any:
        """Warm the function up, then record its launches; returns the tensors that replays will write."""
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_RUNS):
                    function()
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self._graph):
                return function()

    def replay(self) -> None:
        """Launch all of it once more."""
        self._graph.replay()


def reason_for_eager(device: torch.device) -> str | None:
    """Why nothing can be a CUDA graph here, or None."""
    if device.type != "cuda":
        return "no CUDA device"
    return "several processes" if processes.count() > 1 else None


class Captured:
    """A function of tensors on one device as a CUDA graph, captured at the first call.

    Calls with inputs of the same shapes replay, without waiting for the device; others, and all after a failed capture,
    are eager.

    Args:
        function: takes tensors of fixed shape, returns tensors, and reads nothing back from the device.
        device: where its tensors are.
        why_eager: why it cannot be captured; None if it can. A failed capture sets the attribute of this name.
        state: the tensors that the function changes, those included that it makes at its first call. Warming up leaves
            them as they were, and those that were not there before at 0.
    """

    def __init__(
        self,
        function: Callable,
        device: torch.device,
        why_eager: str | None = None,
        state: Callable[[], Iterable[Tensor]] = tuple,
    ):
        self._function, self._device, self._state = function, device, state
        self._graph: CudaGraph | None = None
        self.why_eager = why_eager

    def __call__(self, *inputs: Tensor | float) -> Any:
        """The function's outputs for tensors on the device, or numbers; the next replay overwrites them."""
        if self._graph is None and self.why_eager is None:
            self._capture(inputs)
        if self.why_eager is not None or not self._fits(inputs):
            return self._function(*inputs)
        for static, given in zip(self._inputs, inputs, strict=True):
            # Filling with a number launches a kernel; making a tensor of it would wait for the device.
            static.copy_(given) if isinstance(given, Tensor) else static.fill_(given)
        self._graph.replay()
        return self._outputs

    def _fits(self, inputs: tuple[Tensor | float, ...]) -> bool:
        shapes = [given.shape if isinstance(given, Tensor) else () for given in inputs]
        return shapes == [static.shape for static in self._inputs]

    def _capture(self, inputs: tuple[Tensor | float, ...]) -> None:
        self._inputs = [x.clone() if isinstance(x, Tensor) else torch.tensor(x, device=self._device) for x in inputs]
        # The tensors are held beside their copies, so that no other gets their identity meanwhile.
        before = {id(tensor): (tensor, tensor.detach().clone()) for tensor in self._state()}
        self._graph = CudaGraph(self._device)
        try:
            self._outputs = self._graph.capture(lambda: self._function(*self._inputs))
        except RuntimeError as error:
            self.why_eager = f"capture failed: {str(error).splitlines()[0]}"
        with torch.no_grad():
            for tensor in self._state():
                if id(tensor) in before:
                    tensor.copy_(before[id(tensor)][1])
                else:
                    tensor.zero_()
