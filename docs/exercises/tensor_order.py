"""The order of a backward pass.

The answer takes a dict, from the name of each node to the names of its parents, and the name of the
result. It returns a list of the nodes from which the result was computed, the result first, such
that a node comes after all nodes that use it. The nodes have no numbers here, so their age is
unknown.
"""


def stub(parents, result):
    """Return the nodes, each after all that use it."""
    return [result]


def check(answer):
    """Check the order for graphs in which nodes are used several times."""
    graphs = {
        "a chain": {"y": ["b"], "b": ["a"], "a": []},
        "one node used twice": {"y": ["a", "b"], "b": ["a"], "a": []},
        "two ways of different lengths": {"y": ["c", "b"], "c": ["b"], "b": ["a", "a"], "a": []},
        "a node outside": {"y": ["a"], "a": [], "z": ["a"]},
    }
    steps = {f"h{t}": [f"h{t - 1}", "w"] for t in range(1, 5)} | {"h0": [], "w": []}
    graphs["a loop over time"] = {"y": ["h4", "h2"], **steps}
    for title, parents in graphs.items():
        order = list(answer({name: list(p) for name, p in parents.items()}, "y"))
        assert len(set(order)) == len(order), f"{title}: a node is visited twice: {order}"
        reached, waiting = set(), ["y"]
        while waiting:
            name = waiting.pop()
            reached.add(name)
            waiting += parents[name]
        assert set(order) == reached, f"{title}: {order} should have the nodes {sorted(reached)}"
        for user in order:
            for parent in parents[user]:
                assert order.index(user) < order.index(parent), (
                    f"{title}: {order} has {parent!r} before {user!r}, which uses it; "
                    f"the gradient of {parent!r} is not complete there"
                )


def solution(parents, result):
    """Finish a node after its parents, then reverse the order."""
    finished = []

    def visit(node):
        for parent in parents[node]:
            if parent not in finished:
                visit(parent)
        if node not in finished:
            finished.append(node)  # after all that it was computed from

    visit(result)
    return finished[::-1]


def wrong(parents, result):
    """Take a node as soon as one user has been visited."""
    order, waiting = [], [result]
    while waiting:
        node = waiting.pop()
        if node not in order:
            order.append(node)  # others that use it may follow
            waiting += parents[node]
    return order
