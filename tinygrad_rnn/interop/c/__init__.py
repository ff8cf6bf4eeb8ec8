"""Networks as C: the trace of one time step, its stages in C99, the text of a file."""
