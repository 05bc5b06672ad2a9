"""Why the core multiplies the gradient by a factor before the backward pass asks for it.

The forward pass computes the losses of a batch and their gradient together. The backward pass then receives, for each
sample, the derivative of whatever the user minimises by the loss of that sample: ``1 / B`` for each of ``B`` samples
if that is the mean of the losses, 1 if it is their sum. The gradient has to be multiplied by this number. Doing it
there would read the gradient once more and fill a second array as large as the network's output.

So the core is told in the forward pass which factor to expect, and multiplies while it writes the gradient, which
costs nothing. In the backward pass the adapter divides the factors that did arrive by the expected one. Where the
result is 1 for every sample, as nearly always, it hands the gradient on as it is. Otherwise, as for a weighted sum of
losses or for the loss scaling of mixed precision, it multiplies by the result.
"""

from __future__ import annotations

FIRST_DERIVATIVE_ONLY = (
    "the MALIS loss has a first derivative only: its pair counts are constants of the derivative, and a second "
    "derivative is not implemented"
)


def expected_factor(samples: int, expect_mean: bool) -> float:
    """Factor that the backward pass will receive for each sample if the losses are averaged, else if they are added."""
    return 1 / samples if expect_mean else 1.0
