"""Helpers that know nothing of tensors: messages, containers, memory, resumable iterators."""

LIBRARY = __name__.partition(".")[0]
