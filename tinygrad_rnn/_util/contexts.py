"""Reusable context managers that are also decorators: `no_grad`, `default_device`, ...

`contextlib.contextmanager` makes objects that can be entered only once, and as decorators they have
no effect on a generator function: the call returns before its body starts.
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


class ReusableContext(Generic[T]):
    """A mode that is active in a ``with`` block, or while a decorated function runs.

    It is reusable and reentrant, also in several threads. As a decorator it accepts functions,
    generator functions, coroutine functions and asynchronous generator functions. The mode is
    active while the body runs; at each ``yield`` or ``await`` the mode of the caller is restored.

    Parameters
    ----------
    name : str
        The name in messages.
    start : callable
        Returns a generator that yields once, within ``try: ... finally: ...``. The part before the
        ``yield`` enters the context. The generator is closed at the exit; an exception of the body
        is not thrown into it.
    resumes : bool
        Whether the context can be left and entered again in the middle of a body. If not, the
        decorator raises for generator and coroutine functions.
    """

    def __init__(self, name: str, start: Callable[[], Iterator[T]], resumes: bool = True) -> None:
        self._name, self._start, self._resumes = name, start, resumes
        self._entered: list[tuple[int, Any]] = []  # thread ids and generators

    def __enter__(self) -> T:
        generator: Any = self._start()
        entry = threading.get_ident(), generator
        self._entered.append(entry)
        try:
            value: T = next(generator)
            return value
        except BaseException:  # also an interrupt after the generator has started
            self._entered.remove(entry)
            generator.close()
            raise

    def __exit__(self, *error: object) -> None:
        if not self._entered:
            raise GraphError(f"{self._name}: the context is exited more often than entered")
        entry = self._entered[-1]
        if entry[0] != (here := threading.get_ident()):
            # The default: a suspended generator can end in another thread than it started in.
            entry = next((e for e in reversed(self._entered) if e[0] == here), entry)
        try:
            self._entered.remove(entry)
        finally:
            entry[1].close()

    def __call__(self, function: Any) -> Any:
        """Return the function, run in this context."""
        if isinstance(function, staticmethod | classmethod):
            return type(function)(self(function.__func__))
        check_function(function, self._name, classes=False)
        body = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        kinds = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
        generator, coroutine, agen = (is_one(function) or is_one(body) for is_one in kinds)
        call: Any
        if generator:

            def call(*args: Any, **keywords: Any) -> Any:
                return (yield from self._run_generator(function(*args, **keywords)))

        elif coroutine:

            async def call(*args: Any, **keywords: Any) -> Any:
                return await self._run_awaitable(function(*args, **keywords))

        elif agen:

            def call(*args: Any, **keywords: Any) -> Any:
                return self._run_async_generator(function(*args, **keywords))

        else:

            def call(*args: Any, **keywords: Any) -> Any:
                with self:
                    result = function(*args, **keywords)
                # A wrapped generator function returns a generator whose body has yet to run.
                return self._run_generator(result) if result.__class__ is GeneratorType else result

        if not self._resumes and (generator or coroutine or agen):
            raise DTypeError(
                f"{self._name}: a generator or coroutine function is suspended in its body, and "
                "this context cannot be: write `with` inside the function"
            )
        return functools.update_wrapper(call, function)

    def _run_generator(self, generator: Any) -> Generator[Any, Any, Any]:
        """Run a generator, the context active between its suspensions."""
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

    def _run_awaitable(self, awaitable: Any) -> _Awaitable:
        return _Awaitable(self._run_generator(awaitable.__await__()))

    async def _run_async_generator(
        self, generator: AsyncGenerator[Any, Any]
    ) -> AsyncGenerator[Any, Any]:
        """Run an asynchronous generator, the context active between its suspensions."""
        step: Any
        step, value = generator.asend, None
        while True:
            try:
                item = await self._run_awaitable(step(value))
            except StopAsyncIteration:
                return
            try:
                step, value = generator.asend, (yield item)
            except GeneratorExit:
                await self._run_awaitable(generator.aclose())
                raise
            except BaseException as error:
                step, value = generator.athrow, error


class _Awaitable:
    """An object that ``await`` runs as a generator."""

    def __init__(self, run: Generator[Any, Any, Any]) -> None:
        self._run = run

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run


def reusable_context(
    function: Callable[P, Iterator[T]], resumes: bool = True
) -> Callable[P, ReusableContext[T]]:
    """Return a function that makes a `ReusableContext` from a generator function.

    A decorator, used instead of `contextlib.contextmanager`; the generator function yields once.
    """

    @functools.wraps(function)
    def make(*args: P.args, **keywords: P.kwargs) -> ReusableContext[T]:
        return ReusableContext(function.__name__, lambda: function(*args, **keywords), resumes)

    return make
