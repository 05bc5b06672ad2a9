"""What makes the loss of the core an operator of a framework: a custom operator, a foreign call, a host callback.

Users import `malis.malis_torch` and its siblings, which hold the signatures and the documentation. Behind them lies
one module for each framework, `torch_op`, `jax_op` and `tensorflow_op`, with one function `losses_of_samples`: it
checks tensors and returns a differentiable loss for every sample. `malis.malis_keras` calls that of its backend. What
does not depend on a framework is shared: `settings` checks shapes and dtypes, `host` evaluates NumPy arrays,
`gradient` says which gradient the core is asked for.
"""
