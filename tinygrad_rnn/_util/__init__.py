"""Helpers without tensors: messages, nested containers, contexts, state keys, malloc settings."""

LIBRARY = __name__.partition(".")[0]
