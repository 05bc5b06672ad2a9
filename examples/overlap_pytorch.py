"""Let a GPU compute while the host counts pairs: gradients of micro-batches, with the next forward pass under way.

The loss copies affinities to the host and counts there. The copy waits for all that the device was given before, and
then the device waits for the host, if it was given nothing else. Here it is given the next micro-batch first, and the
loss runs on a stream of its own, which waits for its affinities alone. On other devices the order is the same, and
nothing overlaps.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Is called with the output of the network and the labels, such as `malis.malis_torch.AffinityLoss`."""


def accumulate_gradients(
    network: torch.nn.Module, criterion: Criterion, batches: Sequence[tuple[Tensor, Tensor]]
) -> list[float]:
    """Add the gradients of the mean loss of all micro-batches to those of the network; returns their losses.

    The memory of two micro-batches is in use at a time. Images and labels are on the device and on the host; images are
    copied without waiting if they are in pinned memory.
    """
    device = next(network.parameters()).device
    side = torch.cuda.Stream(device) if device.type == "cuda" else None
    losses: list[Tensor] = []
    waiting: tuple[Tensor, Tensor, torch.cuda.Event | None] | None = None
    for images, labels in (*batches, (None, None)):
        following = None
        if images is not None:
            output = network(images.to(device, non_blocking=True))
            following = output, labels, side and torch.cuda.current_stream(device).record_event()
        if waiting is not None:
            output, labels_of_output, ready = waiting
            with _on(side, output, ready):
                loss = criterion(output, labels_of_output) / len(batches)
            if side is not None:
                torch.cuda.current_stream(device).wait_stream(side)
            loss.backward()
            losses.append(loss.detach())
        waiting = following
    return [float(loss) * len(batches) for loss in losses]


@contextlib.contextmanager
def _on(side: torch.cuda.Stream | None, output: Tensor, ready: torch.cuda.Event | None) -> Iterator[None]:
    """Run on a stream as soon as an output is ready; without one, where everything else runs."""
    if side is None or ready is None:
        yield
        return
    side.wait_event(ready)
    output.record_stream(side)  # its memory is not given to others before the stream is done with it
    with torch.cuda.stream(side):
        yield
