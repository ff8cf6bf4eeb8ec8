"""Which results of a loop over time have a graph, and which parents their gradients reach.

The answers are those of the loop in Python, which has a node for each operation of each step. They
are found from one step: for each of its results, the arguments and invariants that its graph leads
to. Sets of results or of parents are integers: bit i means result i or parent i.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .step_trace import StepTrace


def origins(trace: StepTrace) -> list[int]:
    """Return for each result of a step which arguments and invariants its graph leads to."""
    found: dict[Any, int] = {}
    for i, leaf in enumerate([*trace.arguments, *trace.symbolic_invariants]):
        if leaf._node is not None:
            found[leaf._node] = 1 << i
    for node in trace.nodes:  # oldest first
        if node not in found:
            found[node] = 0
            for parent in node.parents:
                found[node] |= found[parent] if parent is not None else 0
    return [0 if r._node is None else found[r._node] for r in trace.results]


class Reach:
    """The graph of a loop over all its steps.

    Parameters
    ----------
    origins : list of int
        For each result of a step what its graph leads to.
    states : int
        The number of elements of the state: the first results, and the first parents.
    cuts, keeps : sequence of bool
        For each step, in the order of the loop: whether the edge into it ends the graph, and
        whether the state of some sequence passes by it.
    """

    def __init__(
        self, origins: list[int], states: int, cuts: Sequence[bool], keeps: Sequence[bool]
    ) -> None:
        self.origins, self.states = origins, (1 << states) - 1
        self.cuts, self.keeps = cuts, keeps

    def with_graph(self, parents: Sequence[Any]) -> int:
        """Return which results of the loop have a graph; parents without a graph are None."""
        states = self.states
        given = sum(1 << i for i, p in enumerate(parents) if p is not None)
        current, ys = given & states, 0
        computed: dict[int, int] = {}  # the results of a step, by the states with a graph
        last_cut = 0
        if True in self.cuts:
            last_cut = max(t for t, cut in enumerate(self.cuts) if cut)
        for t, cut in enumerate(self.cuts):
            current = 0 if cut else current
            if current not in computed:
                known = current | given & ~states
                computed[current] = sum(1 << i for i, x in enumerate(self.origins) if x & known)
            results = computed[current]
            ys |= results & ~states
            before, current = current, results & states | (current if self.keeps[t] else 0)
            if current == before and results & states == before and t >= last_cut:
                break
        return current | ys

    def reached(self, results: Iterable[int]) -> int:
        """Return which parents the gradients of some results reach."""
        states = self.states
        ends = sum(1 << i for i in results)
        current, ys, found = ends & states, ends & ~states, 0
        leads: dict[int, int] = {}  # parents of a step, by its results with a gradient
        steps = len(self.cuts)
        first_cut = self.cuts.index(True, 1) if True in self.cuts[1:] else steps
        for t in reversed(range(steps)):
            before = current
            if current not in leads:
                leads[current] = 0
                for i, x in enumerate(self.origins):
                    leads[current] |= x if (current | ys) >> i & 1 else 0
            found |= leads[current] & ~states
            current = leads[current] & states | (current if self.keeps[t] else 0)
            if current == before == leads[before] & states and t < first_cut:
                break
            current = 0 if self.cuts[t] else current
        return found | (0 if self.cuts[0] else current)
