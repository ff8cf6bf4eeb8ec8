"""What other libraries call by another name: the errors for unknown names answer with ours."""

OTHER_NAMES = {
    "view": "reshape(shape)",
    "unsqueeze": "expand_dims(axis)",
    "permute": "transpose(axes)",
    "contiguous": "nothing: layout is the library's business",
    "cpu": 'to("cpu")',
    "cuda": 'to("cuda")',
    "float": "astype(tinygrad_rnn.float32)",
    "double": "astype(tinygrad_rnn.float64)",
    "long": "astype(tinygrad_rnn.int64)",
    "requires_grad_": "requires_grad = True",
    "mm": "@",
    "t": ".T",
    "numel": ".size",
    "cat": "concatenate",
    "expand": "broadcast_to(shape)",
    "clamp": "clip(min, max)",
}
