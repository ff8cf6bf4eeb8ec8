"""Positions for the nodes of a graph: columns from left to right, rows with few crossings.

Sugiyama, Tagawa and Toda 1981, "Methods for visual understanding of hierarchical system
structures", reduced to two of its steps: layers by longest path, rows by barycentres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Edges = Sequence[tuple[int, int]]
REACH = 4  # columns; a longer edge is drawn above or below all nodes
SWEEPS = 6
LANE = 0.25  # distance between two lanes, in rows
BORDER = 0.7  # distance of the first lane from the outermost nodes


def columns(edges: Edges, groups: Sequence[int]) -> list[int]:
    """Return the column of each node, to the right of those of its arguments.

    Parameters
    ----------
    edges : sequence of pairs of int
        From argument to result; an argument has the smaller number.
    groups : sequence of int
        The group of each node, never below that of an argument. All columns of a group are to the
        right of those of lower groups.

    Returns
    -------
    list of int
        Within its group each node is as far to the right as its results allow, so that an input is
        next to the step that reads it.

    Examples
    --------
    >>> columns([(0, 2), (1, 2), (2, 3), (1, 3)], [0, 0, 0, 1])
    [0, 0, 1, 2]
    """
    depth = [0] * len(groups)  # the longest path from a node of the same group
    for i, k in sorted(edges, key=lambda edge: edge[1]):
        if groups[i] == groups[k]:
            depth[k] = max(depth[k], depth[i] + 1)
    deepest: dict[int, int] = {}
    for group, own in zip(groups, depth, strict=True):
        deepest[group] = max(deepest.get(group, 0), own)
    latest = [deepest[group] for group in groups]
    for i, k in sorted(edges, reverse=True):
        if groups[i] == groups[k]:
            latest[i] = min(latest[i], latest[k] - 1)
    start, total = {}, 0
    for group in sorted(deepest):
        start[group] = total
        total += deepest[group] + 1
    return [start[group] + own for group, own in zip(groups, latest, strict=True)]


def rows(
    edges: Edges, column: Sequence[int], groups: Sequence[int]
) -> tuple[list[float], dict[tuple[int, int], float]]:
    """Return the height of each node, and of each edge in the columns between its ends.

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
        Of the nodes, growing downwards; two nodes in one column are at least 1 apart.
    lanes : dict of (node, column) to float
        The height at which the edges from a node cross a column on their way to results further to
        the right. Long edges run above all nodes if they start at an input or before the time
        steps, otherwise below all nodes.

    Examples
    --------
    >>> rows([(0, 1), (0, 2), (1, 2)], [0, 1, 2], [0, 0, 0])
    ([0.0, -0.5, 0.0], {(0, 1): 0.5})
    """
    near = [(i, k) for i, k in edges if groups[i] == groups[k]]
    far = {i for i, k in edges if column[k] - column[i] > (REACH if groups[i] == groups[k] else 1)}
    dummies: dict[tuple[int, int], int] = {}  # a dummy node where an edge crosses a column
    column_of = list(column)  # of the nodes, then of the dummy nodes
    left: list[list[int]] = [[] for _ in column_of]  # neighbours
    right: list[list[int]] = [[] for _ in column_of]
    for i, k in near:
        previous = i
        if i in far and column[k] - column[i] > 1:
            continue
        for crossed in range(column[i] + 1, column[k]):
            if (i, crossed) not in dummies:
                dummies[i, crossed] = len(column_of)
                column_of.append(crossed)
                left.append([previous])
                right.append([])
                right[previous].append(len(column_of) - 1)
            previous = dummies[i, crossed]
        left[k].append(previous)
        right[previous].append(k)
    members: dict[int, list[int]] = {}
    for i, own in enumerate(column_of):
        members.setdefault(own, []).append(i)
    height = [0.0] * len(column_of)
    for sweep in range(SWEEPS):  # alternately from left to right and from right to left
        neighbours = right if sweep % 2 else left
        for own in sorted(members, reverse=sweep % 2 == 1):
            barycentre = {}
            for i in members[own]:
                ends = neighbours[i] or [i]
                barycentre[i] = sum(height[k] for k in ends) / len(ends)
            members[own].sort(key=barycentre.__getitem__)
            _separate(members[own], barycentre, height)
    heights = [round(h, 3) for h in height]
    lanes = {crossing: heights[i] for crossing, i in dummies.items()}
    computed, end = {k for _, k in edges}, dict.fromkeys(far, 0)
    for i, k in edges:
        if i in far:
            end[i] = max(end[i], column[k])
    above = {i for i in far if groups[i] == 0 or i not in computed}
    for sources, border, sign in ((above, min(heights), -1), (far - above, max(heights), 1)):
        spans = [(column[i] + 1, end[i], i) for i in sources]
        for (i, crossed), lane in _free_lanes(spans).items():
            lanes[i, crossed] = round(border + sign * (BORDER + LANE * lane), 3)
    return heights[: len(column)], lanes


def _separate(order: Sequence[int], barycentre: Mapping[int, float], height: list[float]) -> None:
    """Set heights at least 1 apart, in this order, with the same mean as the barycentres."""
    lowest = -math.inf
    for i in order:
        height[i] = lowest = max(lowest + 1, barycentre[i])
    shift = sum(barycentre[i] - height[i] for i in order) / len(order)
    for i in order:
        height[i] += shift


def _free_lanes(spans: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    """Return, for each (start, stop, node), a lane that no other span uses, at each column."""
    stops: list[int] = []  # the end of the last span in each lane
    lanes = {}
    for start, stop, i in sorted(spans):
        lane = next((n for n, end in enumerate(stops) if end < start), len(stops))
        stops[lane : lane + 1] = [stop]
        lanes.update({(i, crossed): lane for crossed in range(start, stop)})
    return lanes
