"""The engine: arrays, the graph over them, the table of primitives, and the Tensor."""
