"""Computation graphs as data, as DOT text and as SVG drawings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._util.api_hints import class_name, conversion_hint
from ..engine.graph import Leaf, Node, OutputNode, reachable
from ..engine.tensor import Tensor
from ..errors import ArgumentError, GraphError
from ..nn import Module
from .drawing import WIDTH, checked_width, listed, plain, save_text
from .graph_layout import columns, rows
from .graph_node import GraphNode
from .graph_svg import Layout, at_step, graph_canvas


class Graph:
    """A computation graph: nodes, oldest first, and edges from arguments to results (see `graph`).

    Attributes
    ----------
    nodes : list of GraphNode
        In the order in which they were computed.
    edges : list of pairs of int
        ``(i, k)``: node i is an argument of node k. One edge per argument: ``x * x`` has two.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> picture = tg.viz.graph((x * x).sum(), names={"x": x})
    >>> [node.label for node in picture.nodes], picture.edges
    (['x', 'multiply', 'sum'], [(0, 1), (0, 1), (1, 2)])
    """

    def __init__(
        self,
        nodes: Sequence[GraphNode],
        edges: Sequence[tuple[int, int]],
        groups: Sequence[int],
        equations: Sequence[str] = (),
    ) -> None:
        self.nodes, self.edges = list(nodes), list(edges)
        self._groups = list(groups)  # 0 before the time steps, t + 1 in step t, T + 1 after them
        self._equations = list(equations)

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes, {len(self.edges)} edges)"

    @property
    def alt(self) -> str:
        """The alternative text of the drawing: its nodes and time steps, in sentences.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
        >>> tg.viz.graph(x.exp(), names={"x": x}).alt
        'A computation graph with 2 nodes and 1 edge. Before the result: x, exp.'
        """
        shared: list[str] = []
        inside: dict[int, list[str]] = {}
        for node in self.nodes:
            labels = shared if node.step is None else inside.setdefault(node.step, [])
            labels.append(plain(node.label))
        edges = f"{len(self.edges)} edge{'s' * (len(self.edges) != 1)}"
        text = f"A computation graph with {len(self.nodes)} nodes and {edges}. "
        if not inside:
            return f"{text}Before the result: {_summary(shared)}."
        first, last = min(inside), max(inside)
        text += f"Time steps {first} to {last}"
        text += f"; outside of them: {_summary(shared)}. " if shared else ". "
        shown = sorted(inside) if len(inside) <= 4 else [first, last]
        text += " ".join(f"Step {t}: {_summary(inside[t])}." for t in shown)
        between = sum(
            None not in (step := self.nodes[i].step, end := self.nodes[k].step) and step != end
            for i, k in self.edges
        )
        text += f" {between} edges between time steps, in red, carry gradients through time."
        if self._equations:
            lines = [plain(at_step(line, t)) for t in shown for line in self._equations]
            text += f" The equations next to the steps: {'; '.join(lines)}."
        return text

    def dot(self) -> str:
        r"""Return the graph in the DOT language of Graphviz, from left to right.

        Returns
        -------
        str
            A line for each node and each edge; the nodes of a time step are a cluster.

        Notes
        -----
        The language: https://graphviz.org/doc/info/lang.html. ``dot -Tsvg graph.dot`` draws it.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
        >>> print(tg.viz.graph(x.exp(), names={"x": x}).dot())
        digraph {
          rankdir=LR
          node [shape=box, style="rounded,filled", fillcolor=white]
          n0 [label="x\n(2,) float32", fillcolor="#dbe9f6"]
          n1 [label="exp\n(2,) float32"]
          n0 -> n1
        }
        """
        inside: dict[int | None, list[str]] = {}
        for i, node in enumerate(self.nodes):
            fill = ', fillcolor="#dbe9f6"' if node.leaf else ""
            text = f"{_escape_dot(node.label)}\\n{node.shape} {node.dtype}"
            inside.setdefault(node.step, []).append(f'n{i} [label="{text}"{fill}]')
        lines = ["rankdir=LR", 'node [shape=box, style="rounded,filled", fillcolor=white]']
        lines += inside.pop(None, [])
        for step, members in sorted(inside.items(), key=lambda item: item[0] or 0):
            lines += [f"subgraph cluster_{step} {{", f'  label="t = {step}"']
            lines += [f"  {line}" for line in members] + ["}"]
        lines += [f"n{i} -> n{k}" for i, k in self.edges]
        return "\n".join(["digraph {", *(f"  {line}" for line in lines), "}"])

    def svg(self, width: float = WIDTH) -> str:
        """Return a drawing of the graph as an SVG document, in a light and a dark colour scheme.

        Parameters
        ----------
        width : float
            The room in px. A graph for which it is too narrow, or that has equations, is drawn
            downwards, the others from left to right.

        Returns
        -------
        str
            Every node comes after its arguments, as close to its results as possible. A time step
            is a shaded block. Leaves are blue. Edges between time steps, along which gradients flow
            through time, are red.

        Raises
        ------
        ArgumentError
            If `width` is less than 320.

        Examples
        --------
        >>> import tinygrad_rnn as tg
        >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
        >>> tg.viz.graph(x.exp()).svg()[:60]
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="'
        """
        checked_width(width)
        column = columns(self.edges, self._groups)
        layout = Layout(column, *rows(self.edges, column, self._groups))
        canvas = graph_canvas(self.nodes, self.edges, layout, width, self._equations)
        return canvas.document(f"A computation graph of {len(self.nodes)} nodes", self.alt)

    def _repr_svg_(self) -> str:
        return self.svg()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to a file: SVG, or DOT if the name ends in ``.dot`` or ``.gv``.

        Parameters
        ----------
        path : str or path
            Ends in ``.svg``, ``.dot`` or ``.gv``. An existing file is replaced atomically.

        Raises
        ------
        ArgumentError
            If `path` has another ending.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import tinygrad_rnn as tg
        >>> path = pathlib.Path(tempfile.mkdtemp(), "graph.dot")
        >>> tg.viz.graph(tg.ones(2, requires_grad=True).exp()).save(path)
        >>> path.read_text().split()[0]
        'digraph'
        """
        forms = {".svg": self.svg, ".dot": self.dot, ".gv": self.dot}
        save_text(path, forms, "Graph.save")


def graph(
    outputs: Tensor | Sequence[Tensor],
    names: Mapping[str, Tensor] | Module | None = None,
    steps: Iterable[Any] = (),
    open_scans: bool = False,
    equations: Sequence[str] = (),
    start: int = 0,
) -> Graph:
    """Return the graph of a computation: the nodes that a backward pass would visit.

    Parameters
    ----------
    outputs : Tensor or sequence of Tensors
        The results of the computation.
    names : mapping of str to Tensor, or Module, optional
        Labels of tensors, leaves (the parameters of a module) or results. Tensors that are not in
        the graph are ignored.
    steps : sequence of Tensors or of sequences of Tensors, optional
        The states after each time step, as `unroll` returns them. They assign to every node the
        time step that needs it, unless several steps do.
    open_scans : bool
        Whether a loop over time that is one node is drawn with the nodes of all its steps, as the
        loop in Python records them. Its saved values must not have been freed by a backward pass.
    equations : sequence of str, optional
        The equations of one time step, drawn next to each step: ``"h_t = tanh(x_t + w h_{t-1})"``.
        The subscripts t, t-1 and t+1 become numbers. If there are as many as the nodes of a step,
        each is next to its node.
    start : int
        The number of the first time step.

    Returns
    -------
    Graph
        Has `Graph.dot`, `Graph.svg` and `Graph.save`; a notebook displays the drawing.

    Raises
    ------
    GraphError
        If an output has no graph, or the values of a loop that is opened were freed.
    ArgumentError
        If an output, a named value or a state is not a Tensor, or there are equations and no steps.

    Notes
    -----
    A constant has no node, because no gradient flows to it. A backward pass frees the saved values
    but not the nodes, so the graph can be drawn after it too.

    Examples
    --------
    >>> import tinygrad_rnn as tg
    >>> layer = tg.nn.RNN(2, 3)
    >>> output, states = tg.viz.unroll(layer, tg.randn(4, 1, 2))
    >>> picture = tg.viz.graph(output[-1].sum(), names=layer, steps=states)
    >>> picture
    Graph(21 nodes, 29 edges)
    >>> [node.label for node in picture.nodes if node.step == 2]
    ['indexing', 'linear', 'tanh']

    The steps of a recurrence next to its equations:

    >>> w, h, states = tg.tensor(0.9, requires_grad=True), tg.tensor(0.0), []
    >>> for x_t in (0.5, -0.1, 0.3):
    ...     h = tg.tanh(x_t + w * h)
    ...     states.append(h)
    >>> picture = tg.viz.graph(h, names={"w": w}, steps=states, start=1,
    ...                        equations=["a_t = w h_{t-1}", "s_t = x_t + a_t", "h_t = tanh(s_t)"])
    >>> "h_3 = tanh(s_3)" in picture.alt
    True

    A loop over time is one node, or opened:

    >>> output, state = layer(tg.randn(4, 1, 2))
    >>> [node.label for node in tg.viz.graph(state).nodes][-3:]
    ['scan', '[0]', 'reshape']
    >>> opened = tg.viz.graph(state, open_scans=True)
    >>> sum(node.label == "tanh" for node in opened.nodes)
    4
    """
    ends = list(dict.fromkeys(_node(y, "outputs") for y in _as_list(outputs)))
    if None in ends or not ends:
        raise GraphError(
            "viz.graph: an output has no graph: no tensor that it was computed from has "
            "requires_grad=True, or it was computed under no_grad() or detached"
        )
    named = dict(names.named_parameters()) if isinstance(names, Module) else dict(names or {})
    labels = {_node(tensor, f"names[{name!r}]"): name for name, tensor in named.items()}
    step_of_state = {
        _node(tensor, f"steps[{t}]"): t
        for t, state in enumerate(steps)
        for tensor in _as_list(state)
    }
    if equations and not step_of_state:
        raise ArgumentError(
            "viz.graph: equations are drawn next to time steps: pass the states after each step "
            "as steps"
        )
    if isinstance(equations, str):
        equations = [equations]
    scans = _Scans(open_scans)
    ends = list(dict.fromkeys(scans.opened(end) for end in ends))
    labels = {scans.opened(node): name for node, name in labels.items()}
    step_of_state = {scans.opened(node): t for node, t in step_of_state.items()}
    found = scans.reachable(ends)
    number = {node: i for i, node in enumerate(found)}
    edges = [(number[p], number[n]) for n in found for p in scans.parents(n)]
    groups = _groups(found, edges, step_of_state)
    last = max((t for node, t in step_of_state.items() if node in number), default=-1)
    nodes = [
        GraphNode(
            _label(node, labels.get(node)),
            tuple(node.shape),
            str(node.dtype),
            isinstance(node, Leaf),
            start + group - 1 if 0 < group <= last + 1 else None,
        )
        for node, group in zip(found, groups, strict=True)
    ]
    return Graph(nodes, edges, groups, equations)


class _Scans:
    """Loops over time that are one node each, replaced by the nodes of their steps if `open`."""

    def __init__(self, open: bool) -> None:
        self.open = open
        self.results: dict[Any, list[Tensor]] = {}

    def opened(self, node: Node | None) -> Node | None:
        """Return the node of the last step in place of a result of a loop; else the node itself."""
        whole: Any = node.parents[0] if isinstance(node, OutputNode) else None
        if not self.open or not isinstance(node, OutputNode) or not hasattr(whole, "unrolled"):
            return node
        if whole not in self.results:
            try:
                self.results[whole] = whole.unrolled()
            except GraphError:
                raise GraphError(
                    "viz.graph: open_scans computes the steps of a loop from its saved values, "
                    "which a backward pass freed or an optimizer changed: draw the graph before "
                    "backward, or call backward(retain_graph=True) and draw it before "
                    "optimizer.step()"
                ) from None
        return self.results[whole][node.index]._node

    def parents(self, node: Node) -> list[Node]:
        """Return the nodes of the arguments of a node."""
        found = [self.opened(p) for p in node.parents]
        return [p for p in found if p is not None]

    def reachable(self, ends: Sequence[Any]) -> list[Node]:
        """Return `ends` and the nodes that they were computed from, arguments before results."""
        if not self.open:
            return reachable(ends)
        found: dict[Node, None] = {}
        stack = [(end, False) for end in ends]
        while stack:
            node, complete = stack.pop()
            if complete:
                found[node] = None
            elif node not in found:
                stack.append((node, True))
                stack += [(p, False) for p in self.parents(node) if p not in found]
        return list(found)


def _groups(
    nodes: Sequence[Node],
    edges: Sequence[tuple[int, int]],
    step_of_state: Mapping[Node | None, int],
) -> list[int]:
    """Return the group of each node: 0 before the time steps, t + 1 in step t, T + 1 after them.

    A node belongs to the step whose state depends on it. If several steps read it directly, not
    through a state, it precedes all of them, unless it depends on a state itself.
    """
    state_step = [step_of_state.get(node) for node in nodes]
    after = max((t for t in state_step if t is not None), default=-1) + 1
    arguments: list[list[int]] = [[] for _ in nodes]
    results: list[list[int]] = [[] for _ in nodes]
    for i, k in edges:
        arguments[k].append(i)
        results[i].append(k)
    first, several = [after] * len(nodes), [False] * len(nodes)  # the steps that read a node
    for i in reversed(range(len(nodes))):
        own = state_step[i]
        if own is not None:
            first[i] = own
        elif results[i]:
            readers = {first[k] for k in results[i]}
            first[i] = min(readers)
            several[i] = len(readers - {after}) > 1 or any(several[k] for k in results[i])
    groups: list[int] = []
    depends: list[bool] = []  # on a state
    for i, own in enumerate(state_step):
        depends.append(own is not None or any(depends[k] for k in arguments[i]))
        shared = several[i] and not depends[i]
        lowest = max((groups[k] for k in arguments[i]), default=0)
        groups.append(max(lowest, 0 if shared else first[i] + 1))
    return groups


def _label(node: Node, name: str | None) -> str:
    kind = f"[{node.index}]" if isinstance(node, OutputNode) else node.name
    if name is None:
        return kind
    return name if isinstance(node, Leaf) else f"{name} = {kind}"


def _node(tensor: Any, what: str) -> Node | None:
    if not isinstance(tensor, Tensor):
        raise ArgumentError(
            f"viz.graph: {what}: a Tensor is expected, got {class_name(tensor)}"
            f"{conversion_hint(tensor)}"
        )
    return tensor._node


def _summary(labels: Sequence[str]) -> str:
    """Return the labels of some nodes, or the most frequent ones with their numbers."""
    if len(labels) <= 12:
        return ", ".join(labels)
    counts = Counter(labels).most_common(6)
    return f"{len(labels)} nodes, of which {listed(f'{n} {label}' for label, n in counts)}"


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _escape_dot(text: str) -> str:
    r"""Escape text for a quoted string in DOT."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
