"""Where the nodes of a graph stand: in columns from left to right, in rows without many crossings.

Sugiyama, Tagawa and Toda 1981, "Methods for visual understanding of hierarchical system
structures", reduced to two of its steps: layers by longest path, rows by barycentres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Edges = Sequence[tuple[int, int]]
REACH = 4  # columns; a longer edge leaves the rows of the nodes
SWEEPS = 6
LANE = 0.25  # from lane to lane, in rows


def columns(edges: Edges, groups: Sequence[int]) -> list[int]:
    """Return the column of each node, to the right of those of its arguments.

    Parameters
    ----------
    edges : sequence of pairs of int
        From argument to result; an argument has the smaller number.
    groups : sequence of int
        Of each node; never less than that of an argument. A group stands to the right of all lower
        ones.

    Returns
    -------
    list of int
        Within its group each node stands as far to the right as its results allow, so that an input
        stands beside the step that reads it.

    Examples
    --------
    >>> columns([(0, 2), (1, 2), (2, 3), (1, 3)], [0, 0, 0, 1])
    [0, 0, 1, 2]
    """
    depth = [0] * len(groups)  # within the group, as early as possible
    for i, k in sorted(edges, key=lambda edge: edge[1]):
        if groups[i] == groups[k]:
            depth[k] = max(depth[k], depth[i] + 1)
    deepest: dict[int, int] = {}
    for group, own in zip(groups, depth, strict=True):
        deepest[group] = max(deepest.get(group, 0), own)
    late = [deepest[group] for group in groups]
    for i, k in sorted(edges, reverse=True):
        if groups[i] == groups[k]:
            late[i] = min(late[i], late[k] - 1)
    start, total = {}, 0
    for group in sorted(deepest):
        start[group] = total
        total += deepest[group] + 1
    return [start[group] + own for group, own in zip(groups, late, strict=True)]


def rows(
    edges: Edges, column: Sequence[int], groups: Sequence[int]
) -> tuple[list[float], dict[tuple[int, int], float]]:
    """Return the height of each node, and where each edge passes the columns between its ends.

    Parameters
    ----------
    edges : sequence of pairs of int
        From argument to result.
    column, groups : sequence of int
        Of each node. The heights in a group depend on its own edges alone, so that equal time
        steps look equal.

    Returns
    -------
    heights : list of float
        Of the nodes, growing downwards; whatever stands in one column is at least 1 apart.
    lanes : dict of (node, column) to float
        Where the edges from a node pass a column on their way to results further to the right. Long
        ones run above all nodes, if they come from an input or from before the time steps, or below
        all nodes.

    Examples
    --------
    >>> rows([(0, 1), (0, 2), (1, 2)], [0, 1, 2], [0, 0, 0])
    ([0.0, -0.5, 0.0], {(0, 1): 0.5})
    """
    near = [(i, k) for i, k in edges if groups[i] == groups[k]]
    far = {i for i, k in edges if column[k] - column[i] > (REACH if groups[i] == groups[k] else 1)}
    lanes: dict[tuple[int, int], int] = {}  # each is one more thing that needs a place
    at = list(column)
    left: list[list[int]] = [[] for _ in at]
    right: list[list[int]] = [[] for _ in at]
    for i, k in near:
        before = i
        if i in far and column[k] - column[i] > 1:
            continue
        for passed in range(column[i] + 1, column[k]):
            if (i, passed) not in lanes:
                lanes[i, passed] = len(at)
                at.append(passed)
                left.append([before])
                right.append([])
                right[before].append(len(at) - 1)
            before = lanes[i, passed]
        left[k].append(before)
        right[before].append(k)
    members: dict[int, list[int]] = {}
    for place, own in enumerate(at):
        members.setdefault(own, []).append(place)
    height = [0.0] * len(at)
    for sweep in range(SWEEPS):  # from left to right and back in turn
        neighbours = right if sweep % 2 else left
        for own in sorted(members, reverse=sweep % 2 == 1):
            wanted = {}
            for i in members[own]:
                ends = neighbours[i] or [i]
                wanted[i] = sum(height[k] for k in ends) / len(ends)
            members[own].sort(key=wanted.__getitem__)
            _spread(members[own], wanted, height)
    heights = [round(h, 3) for h in height]
    passing = {lane: heights[place] for lane, place in lanes.items()}
    computed, end = {k for _, k in edges}, dict.fromkeys(far, 0)
    for i, k in edges:
        if i in far:
            end[i] = max(end[i], column[k])
    above = {i for i in far if groups[i] == 0 or i not in computed}
    for sources, edge, away in ((above, min(heights), -1), (far - above, max(heights), 1)):
        spans = [(column[i] + 1, end[i], i) for i in sources]
        for (i, passed), lane in _parallel(spans).items():
            passing[i, passed] = round(edge + away * (1.0 + LANE * lane), 3)
    return heights[: len(column)], passing


def _spread(order: Sequence[int], wanted: Mapping[int, float], height: list[float]) -> None:
    """Set heights at least 1 apart, in this order, and as a whole where they are wanted."""
    lowest = -math.inf
    for i in order:
        height[i] = lowest = max(lowest + 1, wanted[i])
    shift = sum(wanted[i] - height[i] for i in order) / len(order)
    for i in order:
        height[i] += shift


def _parallel(spans: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    """Return a lane that is free all the way for each (start, stop, node), at each column."""
    free: list[int] = []  # where the last span in each lane stops
    lanes = {}
    for start, stop, i in sorted(spans):
        lane = next((n for n, end in enumerate(free) if end < start), len(free))
        free[lane : lane + 1] = [stop]
        lanes.update({(i, passed): lane for passed in range(start, stop)})
    return lanes
