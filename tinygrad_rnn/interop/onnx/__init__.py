"""ONNX out: a network, run on example inputs, becomes a graph (extra ``onnx``).

1. `trace.py` runs the network and records its operations; `recurrent.py` records a recurrent layer
   as a whole, and the step of any other cell as a body of its own.
2. `merge.py` compares runs on inputs of several sizes: a number that follows from the sizes is
   computed in the file, anything else that differs is refused.
3. `graph.py` collects nodes of ONNX; `operations.py`, `indexing.py` and `layers.py` make them.
4. `save.py` has the function that users call, `arguments.py` its inputs.
"""
