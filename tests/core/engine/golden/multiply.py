"""The code that `tinygrad_rnn.multiply` runs, as `engine/codegen.py` generates it.

This file is not executed: `test_golden.py` compares it with ``multiply.definition.source``. The
definition of the operation, in ``engine/ops/arithmetic.py``, is

    @primitive(x=lambda F, g, y: g * y, y=lambda F, g, x: g * x)
    def multiply(xp, x, y):
        return x * y

Global names of the generated code, specific to this operation:

==================  ================================================================================
``definition``      the `OpDefinition`
``forward``         the function ``multiply(xp, x, y)`` on arrays
``x_vjp, y_vjp``    the two lambda functions: vector-Jacobian products (vjps)
``OpNode``          a subclass of `engine.codegen.OpNode` with the function `vjp` below
==================  ================================================================================

and common to all operations:

======================  ============================================================================
``modules``             the array library for each class of arrays, ``{numpy.ndarray: numpy}``
``promote_operands``    converts numbers and lists to arrays and promotes dtypes
``failure``             returns an error that names the operation and the shapes of its arguments
``new``                 ``object.__new__``, which skips ``Tensor.__init__``
``paused``, ``thread``  the modes: whether this thread records operations
``tick``                the next number of the clock that orders nodes and writes in place
``last_write``          the time of the last write in place
``watching``            true while a thread is inside `detect_anomaly`
======================  ============================================================================

What the code does beyond the product:

- The forward broadcasts. The vjps return gradients of the broadcast shape; the backward pass sums
  them over the broadcast axes (`engine.backward_pass.unbroadcast`).
- A value is saved only for a vjp that will run: y if x requires a gradient, x if y does.
- The versions of the saved tensors tell whether one was changed in place before the backward pass.
"""
# ruff: noqa

# -- the generated code: everything below this line --


def multiply(x, y):
    # Take the arrays; promote them if their classes or dtypes differ.
    try:
        x_data, y_data = x._data, y._data
        xp = (
            x_data.__class__ is y_data.__class__
            and x_data.dtype is y_data.dtype
            and one_device.get(x_data.__class__)
        )
    except AttributeError:  # an argument is not a Tensor
        xp = None
    if not xp:
        xp, (x_data, y_data), (x, y) = promote_operands(definition, (x, y))

    # Compute the result.
    try:
        out = forward(xp, x_data, y_data)
    except (ValueError, TypeError, IndexError) as error:
        raise failure(definition, (x_data, y_data), {}, error) from error
    if out.__class__ not in modules:  # NumPy returns scalars for 0-d operands
        out = xp.asarray(out)
    result = new(Tensor)
    result._data = out
    result._version = None
    result._node = None

    # Record a node if an argument requires a gradient.
    x_node, y_node = x._node, y._node
    if (x_node or y_node) and (not paused or thread.recording):
        result._node = node = OpNode()
        node.order = tick()
        node.parents = (x_node, y_node)
        node.shape = out.shape
        node.dtype = out.dtype
        node.saved = (
            y_data if x_node else None,
            x_data if y_node else None,
            y._version if x_node else None,
            x._version if y_node else None,
        )

    if watching:  # a thread is inside detect_anomaly
        watch_result(definition, result, (x_data, y_data), {})
    return result


def vjp(node, F, g, parents, retain):
    saved = node.saved
    if saved is None or F.records or last_write[0] > node.order:
        saved = node.check_and_wrap_saved(F)
    if not retain:
        node.saved = None
    return (
        None if parents[0] is None else x_vjp(F, g, saved[0]),
        None if parents[1] is None else y_vjp(F, g, saved[1]),
    )
