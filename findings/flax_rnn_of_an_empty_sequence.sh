#!/usr/bin/env bash
# Flax 0.12.8: nnx.RNN and linen.RNN with seq_lengths of 0 return the carry after all steps.
#
# The carry of a sequence is selected by the index length - 1, and the index -1 is the last step. So a
# sequence without a step ends in the state after every step of its padding, which PyTorch refuses and
# Keras, Paddle and onnxruntime do not compute. One empty row of a batch is enough; no error, no nan.
#
# Seen, in both interfaces: the carry of a sequence of length 3 differs from the output of step 3 by 0.0,
# and that of one of length 0 from the output of step 7, the last one, by 0.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet flax==0.12.8 jax==0.10.2
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import jax
import jax.numpy as jnp
from flax import linen, nnx

x = jax.random.normal(jax.random.key(0), (2, 7, 3))
lengths = jnp.array([3, 0])

layer = nnx.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)))
carry, outputs = layer(x, seq_lengths=lengths, return_carry=True)
print("nnx", *(jnp.abs(outputs[row, t] - carry[row]).max() for row, t in ((0, 2), (1, 6))))
assert jnp.allclose(carry[0], outputs[0, 2]) and jnp.allclose(carry[1], outputs[1, 6])
assert jnp.abs(carry[1]).max() > 0.1  # the initial carry is zero

layer = linen.RNN(linen.GRUCell(4))
variables = layer.init(jax.random.key(0), x)
carry, outputs = layer.apply(variables, x, seq_lengths=lengths, return_carry=True)
print("linen", *(jnp.abs(outputs[row, t] - carry[row]).max() for row, t in ((0, 2), (1, 6))))
assert jnp.allclose(carry[0], outputs[0, 2]) and jnp.allclose(carry[1], outputs[1, 6])
assert jnp.abs(carry[1]).max() > 0.1
PYTHON
