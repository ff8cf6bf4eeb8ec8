"""Functions of functions: derivatives of any order, gradient checkpointing, anomaly detection."""
