"""Context managers that are decorators too: `no_grad`, `default_device`, `detect_anomaly`, ...

`contextlib` has such objects, but one of them can be entered once only, and around a generator
function the decorator does nothing: the call returns before the body begins.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from types import GeneratorType
from typing import Any, Generic, ParamSpec, TypeVar

from ..errors import DTypeError, GraphError
from .functions import check_function

P = ParamSpec("P")
T = TypeVar("T")


class Block(Generic[T]):
    """A mode that holds in a ``with`` block, or while a decorated function runs.

    One object can be entered again, also inside itself and in several threads. As a decorator it
    takes functions, generator functions, coroutine functions and asynchronous generator functions.
    The mode holds while the body runs; at each ``yield`` or ``await`` the mode of the caller is
    restored.

    Parameters
    ----------
    name : str
        For messages.
    begin : callable
        Makes a generator that yields once, within ``try: ... finally: ...``. Up to there it begins
        the block; it is closed at the end, and does not see what was raised inside.
    resumes : bool
        Whether the block can be left and entered again in the middle of a body. If not, generator
        and coroutine functions are refused.
    """

    def __init__(self, name: str, begin: Callable[[], Iterator[T]], resumes: bool = True) -> None:
        self._name, self._begin, self._resumes = name, begin, resumes
        self._entered: list[tuple[int, Any]] = []  # the thread, and the generator

    def __enter__(self) -> T:
        begun: Any = self._begin()
        entry = threading.get_ident(), begun
        self._entered.append(entry)
        try:
            value: T = next(begun)
            return value
        except BaseException:  # an interrupt, too, when it had begun
            self._entered.remove(entry)
            begun.close()
            raise

    def __exit__(self, *error: object) -> None:
        if not self._entered:
            raise GraphError(f"{self._name}: the block is left more often than it was entered")
        entry = self._entered[-1]
        if entry[0] != (here := threading.get_ident()):
            # If there is none of this thread: a suspended generator can end in another one.
            entry = next((e for e in reversed(self._entered) if e[0] == here), entry)
        try:
            self._entered.remove(entry)
        finally:
            entry[1].close()

    def __call__(self, function: Any) -> Any:
        """Return a function that runs in the block."""
        if isinstance(function, staticmethod | classmethod):
            return type(function)(self(function.__func__))
        check_function(function, self._name, classes=False)
        body = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        kinds = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
        generator, coroutine, stream = (is_one(function) or is_one(body) for is_one in kinds)
        call: Any
        if generator:

            def call(*args: Any, **keywords: Any) -> Any:
                return (yield from self._driven(function(*args, **keywords)))

        elif coroutine:

            async def call(*args: Any, **keywords: Any) -> Any:
                return await self._awaited(function(*args, **keywords))

        elif stream:

            def call(*args: Any, **keywords: Any) -> Any:
                return self._streamed(function(*args, **keywords))

        else:

            def call(*args: Any, **keywords: Any) -> Any:
                with self:
                    result = function(*args, **keywords)
                # A generator whose body has yet to run, from behind another decorator.
                return self._driven(result) if result.__class__ is GeneratorType else result

        if not self._resumes and (generator or coroutine or stream):
            raise DTypeError(
                f"{self._name}: a generator or coroutine function stops in the middle, and this "
                "block cannot: write `with` inside the function"
            )
        return functools.update_wrapper(call, function)

    def _driven(self, generator: Any) -> Generator[Any, Any, Any]:
        """Run a generator, each stretch of its body in the block."""
        step, value = generator.send, None
        while True:
            with self:
                try:
                    item = step(value)
                except StopIteration as stop:
                    return stop.value
            try:
                step, value = generator.send, (yield item)
            except GeneratorExit:
                with self:
                    generator.close()
                raise
            except BaseException as error:
                step, value = generator.throw, error

    def _awaited(self, awaitable: Any) -> _Awaited:
        return _Awaited(self._driven(awaitable.__await__()))

    async def _streamed(self, stream: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
        """Run an asynchronous generator as `_driven` does."""
        step: Any
        step, value = stream.asend, None
        while True:
            try:
                item = await self._awaited(step(value))
            except StopAsyncIteration:
                return
            try:
                step, value = stream.asend, (yield item)
            except GeneratorExit:
                await self._awaited(stream.aclose())
                raise
            except BaseException as error:
                step, value = stream.athrow, error


class _Awaited:
    """What ``await`` runs."""

    def __init__(self, run: Generator[Any, Any, Any]) -> None:
        self._run = run

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run


def block(function: Callable[P, Iterator[T]], resumes: bool = True) -> Callable[P, Block[T]]:
    """Make a function that returns a `Block` of a generator function that yields once.

    It is used in the place of `contextlib.contextmanager`.
    """

    @functools.wraps(function)
    def make(*args: P.args, **keywords: P.kwargs) -> Block[T]:
        return Block(function.__name__, lambda: function(*args, **keywords), resumes)

    return make
