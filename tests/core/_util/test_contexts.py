"""Context managers as blocks and as decorators: reused, nested, in threads, around any function."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.grad_mode import thread
from tinygrad_rnn.errors import ArgumentError, DeviceError, GraphError
from tinygrad_rnn.transforms import fuse

# What makes the block, and what tells whether this thread is in one.
BLOCKS: dict[str, tuple[Callable[[], Any], Callable[[], bool]]] = {
    "no_grad": (tg.no_grad, lambda: not tg.is_grad_enabled()),
    "detect_anomaly": (tg.detect_anomaly, lambda: thread.watcher is not None),
    "eager": (fuse.eager, lambda: fuse.mode.eager),
}
blocks = pytest.mark.parametrize("name", BLOCKS)


@blocks
def test_a_block_is_entered_again_and_inside_itself(name: str) -> None:
    make, inside = BLOCKS[name]
    block = make()
    for _ in range(2):
        with block:
            with block:
                assert inside()
            assert inside()
        assert not inside()
    with pytest.raises(ZeroDivisionError), block, block:
        raise ZeroDivisionError
    assert not inside()


def test_grad_modes_in_each_other() -> None:
    off, on = tg.no_grad(), tg.enable_grad()
    with off, on, off:
        with on:
            assert tg.is_grad_enabled()
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()


def test_a_block_that_cannot_be_entered_can_be_tried_again() -> None:
    block = tg.default_device("cuda:99")
    for _ in range(2):
        with pytest.raises(DeviceError), block:
            pass
    assert not block._entered


@blocks
def test_a_context_that_is_exited_twice_raises(name: str) -> None:
    one = BLOCKS[name][0]()
    with one:
        pass
    with pytest.raises(GraphError, match="exited more often than entered"):
        one.__exit__(None, None, None)


@blocks
def test_two_threads_share_one_block(name: str) -> None:
    make, inside = BLOCKS[name]
    block, seen = make(), list[bool]()
    entered, go = threading.Event(), threading.Event()

    def other() -> None:
        with block:
            entered.set()
            go.wait(60)
            seen.append(inside())
        seen.append(inside())

    thread = threading.Thread(target=other)
    with block:
        thread.start()
        assert entered.wait(60)
    assert not inside()  # it left while the other thread is in its own
    go.set()
    thread.join()
    assert seen == [True, False]


@blocks
def test_a_decorated_function_may_call_itself(name: str) -> None:
    make, inside = BLOCKS[name]

    @make()
    def depth(n: int) -> int:
        """Return n."""
        assert inside()
        return 0 if n == 0 else 1 + depth(n - 1)

    assert depth(3) == 3 and not inside()
    assert depth.__name__ == "depth" and depth.__doc__ == "Return n."


@blocks
def test_the_body_of_a_generator_runs_in_the_block_and_its_caller_does_not(name: str) -> None:
    make, inside = BLOCKS[name]

    def body(n: int) -> Any:
        try:
            for _ in range(n):
                yield inside()
            return inside()
        finally:
            ends.append(inside())

    class Holder:
        @make()
        @staticmethod
        def of_static(n: int) -> Any:
            yield from body(n)

        @make()
        @classmethod
        def of_class(cls, n: int) -> Any:
            yield from body(n)

        @make()
        def of_instance(self, n: int) -> Any:
            yield from body(n)

        def __call__(self, n: int) -> Any:
            yield from body(n)

    def hidden(n: int) -> Any:  # as behind a decorator that knows nothing of generators
        return body(n)

    decorated = [make()(f) for f in (body, functools.partial(body), hidden, Holder())]
    for function in (*decorated, Holder.of_static, Holder().of_class, Holder().of_instance):
        ends: list[bool] = []
        modes, results = [], []
        generator = function(3)
        while True:
            try:
                results.append(next(generator))
            except StopIteration as stop:
                results.append(stop.value if stop.value is not None else True)
                break
            modes.append(inside())
        assert results == [True] * 4 and modes == [False] * 3 and ends == [True]

        generator = function(3)
        next(generator)
        generator.close()
        assert not inside() and ends == [True, True]
        with make():  # the mode of the caller is restored, not the one of the definition
            next(generator := function(3))
            assert inside()
        generator.close()


@blocks
def test_coroutines_and_asynchronous_generators(name: str) -> None:
    make, inside = BLOCKS[name]
    block = make()

    @block
    async def waits(n: int) -> list[bool]:
        seen = []
        for _ in range(n):
            seen.append(inside())
            await asyncio.sleep(0)
        return seen

    @block
    async def streams(n: int) -> Any:
        try:
            for _ in range(n):
                await asyncio.sleep(0)
                got = yield inside()
                assert got is None or got == "sent"
        except KeyError:
            yield "caught" if inside() else "caught outside"

    async def run() -> None:
        tasks = [asyncio.create_task(waits(4)) for _ in range(3)]
        for _ in range(3):
            await asyncio.sleep(0)
            assert not inside()
        assert await asyncio.gather(*tasks) == [[True] * 4] * 3
        async for on in streams(3):
            assert on and not inside()
        stream = streams(3)
        await anext(stream)
        assert await stream.asend("sent") is True
        assert await stream.athrow(KeyError) == "caught"
        await stream.aclose()
        assert not inside()

    asyncio.run(run())


@pytest.mark.parametrize("target", [tg.nn.Linear, int, property(len), 3])
def test_only_functions_are_decorated(target: Any) -> None:
    cure = ".* each method of a class" if isinstance(target, type) else ""
    with pytest.raises(ArgumentError, match=f"no_grad: a function is expected{cure}"):
        tg.no_grad()(target)


def test_a_replay_of_random_numbers_is_no_decorator_of_a_body_that_stops() -> None:
    state = tg.random.get_state()
    first = tg.rand(3).numpy()
    block = tg.random.replay(state)
    for _ in range(2):
        with block:
            np.testing.assert_array_equal(tg.rand(3).numpy(), first)
    np.testing.assert_array_equal(block(lambda: tg.rand(3).numpy())(), first)
    with pytest.raises(TypeError, match=r"replay: .*write `with` inside"):

        @tg.random.replay(state)
        def generator() -> Any:
            yield tg.rand(3)


STEPS = st.lists(st.sampled_from(["next", "send", "throw", "caught", "close", "swap"]), max_size=8)


@pytest.mark.oracle
@given(STEPS, st.booleans())
def test_a_decorated_generator_is_pytorchs(steps: list[str], outside: bool) -> None:
    torch = pytest.importorskip("torch")

    def trace(no_grad: Any, enable_grad: Any, enabled: Callable[[], bool]) -> list[Any]:
        log: list[Any] = []

        @no_grad()
        def body() -> Any:
            got: Any = "nothing"
            for n in range(5):
                log.append(("in", n, got, enabled()))
                try:
                    got = yield n
                except KeyError:
                    got = "caught"
                finally:
                    log.append(("after", enabled()))
            return "end"

        def drive() -> None:
            generator, mode = body(), enabled()
            for step in steps:
                try:
                    if step == "swap":
                        mode = not mode
                        continue
                    with enable_grad() if mode else no_grad():
                        if step == "next":
                            log.append(next(generator))
                        elif step == "send":
                            log.append(generator.send(step))
                        elif step == "close":
                            log.append(generator.close())
                        else:
                            kind = KeyError if step == "caught" else ValueError
                            log.append(generator.throw(kind("thrown")))
                        log.append(enabled())
                except (StopIteration, ValueError, KeyError, TypeError) as error:
                    log.append((type(error).__name__, str(getattr(error, "value", ""))))
                log.append(enabled())

        with enable_grad() if outside else no_grad():
            drive()
        return log

    ours = trace(tg.no_grad, tg.enable_grad, tg.is_grad_enabled)
    assert ours == trace(torch.no_grad, torch.enable_grad, torch.is_grad_enabled)
