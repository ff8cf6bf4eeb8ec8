"""Networks as one C file, which needs no other library than that of C: `save_c`."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, NamedTuple

import numpy as np

from .._util import LIBRARY
from ..errors import ArgumentError
from ..io import atomic_write
from ..models import Classifier, Forecaster, LanguageModel
from ..speed.expressions import Expression
from ..speed.loops import Unsupported
from .c import language, text
from .c.network import CURE, Network, check_finite, evaluate
from .c.stages import CStages


class CFile(NamedTuple):
    """A file that `save_c` wrote.

    Attributes
    ----------
    path : str
        The file.
    parameters : int
        The numbers in its matrices, biases and tables.
    flash_bytes : int
        The constants: weights, scales, tokens with pointers of 4 bytes. The machine code is some
        kilobytes more.
    ram_bytes : int
        The state, the output, and the arrays that a step has on the stack.
    input_size, state_size, output_size : int
        The lengths of ``x``, ``state`` and ``y``.
    int8 : bool
        Whether matrices are in int8.

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "gru.c")
    >>> made = tg.interop.save_c(path, tg.nn.GRU(3, 8))
    >>> print(str(made).partition(": ")[2])
    296 parameters, flash 1,184 bytes, RAM 288 bytes (state 32); x 3, state 8, y 8
    """

    path: str
    parameters: int
    flash_bytes: int
    ram_bytes: int
    input_size: int
    state_size: int
    output_size: int
    int8: bool

    def __str__(self) -> str:
        kind = ", matrices in int8" * self.int8
        return (
            f"{self.path}: {self.parameters:,} parameters{kind}, flash {self.flash_bytes:,} bytes, "
            f"RAM {self.ram_bytes:,} bytes (state {4 * self.state_size:,}); x {self.input_size}, "
            f"state {self.state_size}, y {self.output_size}"
        )


def save_c(
    path: str | os.PathLike[str],
    model: Any,
    *,
    int8: bool = False,
    prefix: str = "",
    input_size: int | None = None,
) -> CFile:
    """Write a network as one C99 file: one time step, and for language models a text.

    The file has constant weights, allocates nothing, and needs ``math.h`` and ``-lm`` only.

    Parameters
    ----------
    path : str or path
        The file, which is replaced atomically.
    model : Module
        A `tg.models.RecurrentLM`, `NeuralLM`, `Classifier` or `Forecaster`; `nn.Recurrent` with any
        cell, also your own; a cell; or a module whose `forward` calls such layers, `Linear`,
        `LayerNorm`, functions of each element, ``softmax``, at its beginning an `Embedding`. In
        float32, on the CPU. Dropout is off.
    int8 : bool
        Whether matrices and embeddings are in int8, with a float scale for each output of a matrix
        and each row of an embedding. Activations and biases are floats.
    prefix : str
        The beginning of all public names, for several networks in one program.
    input_size : int, optional
        I, where it is not that of the first layer.

    Returns
    -------
    CFile
        The sizes in bytes; ``print`` shows them.

    Raises
    ------
    ArgumentError
        If the model is bidirectional, has a parameter that is not finite, or a step that cannot be
        traced, or computes something else step by step than on a sequence. Nothing is written.
    DTypeError, DeviceError
        If parameters are not float32, or not on the CPU.
    OSError
        If writing fails; an old file is unchanged.

    Notes
    -----
    The file defines ``INPUT_SIZE``, ``STATE_SIZE``, ``OUTPUT_SIZE`` and::

        void init_state(float *state);                              /* before the first step */
        void step(const float *x, float *state, float *y);
        void step_token(int token, float *state, float *y);         /* with an embedding */

    and for language models, with ``VOCAB_SIZE``::

        int draw(const float *y, float temperature, uint32_t *seed);
        int generate(const int *prefix, int length, int count, float temperature,
                     uint32_t *seed, int stop, int *tokens);
        const char *token_text(int id);                             /* in UTF-8 */
        int encode(const char *text, int *ids, int capacity);

    A model that has one result for a sequence, as a `Classifier`, or a module that reads the final
    state of a layer, ``h[-1]``, gives that of the steps so far. A `Forecaster` whose scaler was
    fitted takes and returns values in the unit of the data, as `predict` does. With a vocabulary a
    `Classifier` has ``encode`` too.

    `y` of a language model are the logits of the next token. Temperature 0 takes the likeliest
    token; `stop`, or -1, is the token that ends a text. ``cc -DTINYGRAD_RNN_MAIN`` makes a program
    of the file. Results differ from those of the model by rounding: the order of a sum is another
    one.

    A weight in int8 is w ≈ s q with q = round(w / s) and s = max |w| / 127 over the inputs of an
    output (Jacob and others 2018, Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, with a scale for each row and no zero point).

    Examples
    --------
    >>> import os, tempfile
    >>> import tinygrad_rnn as tg
    >>> vocab = tg.data.text.Vocabulary("the time machine")
    >>> model = tg.models.RecurrentLM(tg.nn.LSTMCell, vocab, 16, embedding_dim=8)
    >>> path = os.path.join(tempfile.mkdtemp(), "lm.c")
    >>> small, large = (tg.interop.save_c(path, model, int8=x) for x in (True, False))
    >>> small.flash_bytes < large.flash_bytes / 2
    True
    """
    _check_options(int8, prefix, input_size)
    network = Network(model, input_size)
    network.check()
    source, report = _File(network, prefix, int8).text(os.fspath(path))
    with atomic_write(path) as file:
        file.write(source.encode())
    return report


def _check_options(int8: Any, prefix: Any, input_size: Any) -> None:
    if not isinstance(int8, bool):
        raise ArgumentError(f"save_c: int8 is True or False, got {int8!r}")
    if not isinstance(prefix, str) or (prefix and not re.fullmatch(r"[A-Za-z]\w*", prefix, re.A)):
        raise ArgumentError(
            f"save_c: prefix is the beginning of names in C (letters, digits, _), got {prefix!r}"
        )
    if input_size is not None and (not hasattr(input_size, "__index__") or input_size < 1):
        raise ArgumentError(f"save_c: input_size is a positive integer, got {input_size!r}")


class _File:
    """The parts of a C file."""

    def __init__(self, network: Network, prefix: str, int8: bool) -> None:
        self.network, self.p, self.int8 = network, prefix, int8
        trace = network.trace
        arguments = [t._data for t in trace.arguments[: trace.states + 1]]
        self.sizes = [x.sizes[-1] for x in arguments[:-1]]
        given: dict[Expression, str] = {x: f"s{i}" for i, x in enumerate(arguments[:-1])}
        given[arguments[-1]] = "x"
        targets = [(x, f"n{i}") for i, x in enumerate(network.new)]
        try:
            self.stages = CStages(given, [*targets, (network.y, "y")])
        except Unsupported as error:
            raise ArgumentError(
                f"save_c: a step of {network.kind} cannot be written in C: {error}: {CURE}"
            ) from error
        self.flash = self.parameters = 0
        self.output_size = network.y.sizes[-1]
        self.state_size = sum(self.sizes)

    def text(self, path: str) -> tuple[str, CFile]:
        """Return the file, and its report."""
        n, p, P = self.network, self.p, self.p.upper()
        vocab, writes = n.vocabulary, isinstance(n.model, LanguageModel)
        arrays, step = self._constants(), text.portable(self._step())
        token, embedding_bytes = self._token()
        math = text.functions(step)
        products = text.products(self.int8, n.one_hot) if self.stages.weights else ""
        parts = [arrays, text.FUSED, math, products, step, token]
        if writes:
            parts.append(language.drawing(p))
        if vocab is not None:
            tokens, size = language.vocabulary(p, vocab)
            self.flash += size
            parts.append(tokens)
        if vocab is not None and writes:
            parts.append(language.MAIN.format(p=p, space=" " * (vocab.level == "word")))
        elif not token:
            parts.append(language.VECTOR_MAIN.format(p=p, P=P))
        body = "\n".join(x.strip("\n") + "\n" for x in parts if x)
        ram = 4 * (2 * self.state_size + self.output_size) + self.stages.scratch_bytes
        report = CFile(
            path, self.parameters, self.flash, ram + embedding_bytes,
            n.input_size, self.state_size, self.output_size, self.int8,
        )  # fmt: skip
        return self._head(report, vocab, bool(token)) + body, report

    def _head(self, report: CFile, vocab: Any, token: bool) -> str:
        n, p, P = self.network, self.p, self.p.upper()
        sizes = {"INPUT_SIZE": n.input_size, "STATE_SIZE": self.state_size}
        sizes["OUTPUT_SIZE"] = self.output_size
        by = f"{n.kind} by {LIBRARY} {sys.modules[LIBRARY].__version__}"
        about = (
            f"{by}: {str(report).partition(': ')[2]}.\n\n"
            "One time step reads x and changes the state in place; x, state and y must not "
            "overlap. C99, without allocation; link with -lm."
        )
        lines = [
            f"void {p}init_state(float *state);",
            f"void {p}step(const float *x, float *state, float *y);",
        ]
        if token:
            lines.append(f"void {p}step_token(int token, float *state, float *y);")
        if isinstance(n.model, Classifier):
            classes = ", ".join(map(str, n.model.classes))
            about += f" y are the logits of the classes, for the steps so far: {classes}."
        if isinstance(n.model, Forecaster):
            A, K = n.model.ahead, n.model.num_targets
            unit = "in the unit of the data" if n.model.scaler.count.item() else "standardised"
            about += f" y are {A} times {K} values that follow the steps so far, {unit} as x is."
        if vocab is not None:
            sizes["VOCAB_SIZE"] = len(vocab)
        if isinstance(n.model, LanguageModel):
            sizes["VOCAB_SIZE"] = n.model.vocab_size
            about += (
                " y are the logits of the next token. draw takes the likeliest one at temperature "
                "0, else one by p^(1 / temperature); it never takes token 0, which is unknown. "
                "generate reads a prefix, writes at most count tokens, ends before the token stop "
                "(-1: at none), and returns how many it wrote."
            )
            lines += [
                f"int {p}draw(const float *y, float temperature, uint32_t *seed);",
                f"int {p}generate(const int *prefix, int length, int count, float temperature,",
                "             uint32_t *seed, int stop, int *tokens);",
            ]
        if token:
            about += " Ids are below VOCAB_SIZE, which no function checks." * (
                "VOCAB_SIZE" in sizes
            )
        if vocab is not None:
            about += " encode returns the number of ids."
            lines.append(f"const char *{p}token_text(int id);")
            lines.append(f"int {p}encode(const char *text, int *ids, int capacity);")
        values = ", ".join(f"{P}{name} = {size}" for name, size in sizes.items())
        includes = "#include <math.h>\n#include <stdbool.h>\n#include <stdint.h>\n\n"
        return (
            text.comment(about) + includes + f"enum {{ {values} }};\n\n" + "\n".join(lines) + "\n\n"
        )

    # -- constants ---------------------------------------------------------------------------------

    def _constants(self) -> str:
        """Return the arrays that a step reads: the weights, then biases and others."""
        n, stages = self.network, self.stages
        outside = [x for x, name in stages.outside.items() if name in stages.buffers]
        weights = [*stages.weights]
        values = evaluate([*weights, *outside], dict(n.constants))
        names = n.names()
        arrays = []
        for i, (x, value) in enumerate(zip([*weights, *outside], values, strict=True)):
            source, note = x, ""
            while source.op in ("transpose", "reshape", "broadcast_to"):
                source, note = source.args[0], ", transposed" if x.op == "transpose" else ""
            known = names.get(id(n.constants.get(source)), "")
            check_finite(known or f"a constant of a step of {n.kind}", value)
            what = known + note * bool(known)
            if i < len(weights):
                arrays.append(self._matrix(f"w{i}", value, what))
            else:
                arrays.append(text.array(stages.outside[x], value, what))
                self._count(value.size, value.nbytes)
        if n.table is not None:
            arrays.append(self._table(n.table.numpy()))
        return "\n".join(arrays)

    def _count(self, parameters: int, size: int) -> None:
        self.parameters += parameters
        self.flash += size

    def _matrix(self, name: str, value: Any, what: str) -> str:
        self._count(value.size, value.size if self.int8 else value.nbytes)
        if not self.int8:
            return text.array(name, text.blocks(value), what)
        levels, scale = text.quantized(value, 0)
        self.flash += scale.nbytes
        scales = text.array(f"{name}_scale", scale)
        return text.array(name, text.blocks(levels), what) + scales

    def _table(self, value: Any) -> str:
        self._count(value.size, value.size if self.int8 else value.nbytes)
        if not self.int8:
            return text.array("embedding", value, "a row for each token")
        levels, scale = text.quantized(value, 1)
        self.flash += scale.nbytes
        scales = text.array("embedding_scale", scale)
        return text.array("embedding", levels, "a row for each token") + scales

    # -- functions ---------------------------------------------------------------------------------

    def _step(self) -> str:
        """Return `init_state` and `step`."""
        n, p, P = self.network, self.p, self.p.upper()
        initial = np.concatenate([t.numpy().ravel() for t in n.initial])
        check_finite(f"the initial state of {n.kind}", initial)
        value = "0"
        first = ""
        if initial.any():
            first, value = (
                text.array("initial", initial, "the state before the first step"),
                "initial[i]",
            )
            self._count(0, initial.nbytes)
        starts = np.cumsum([0, *self.sizes]).tolist()
        used = self.stages.buffers
        before = [
            f"    const float *const s{i} = state{f' + {start}' * bool(start)};"
            for i, start in enumerate(starts[:-1])
            if f"s{i}" in used
        ]
        before += [f"    float n{i}[{size}];" for i, size in enumerate(self.sizes)]
        before += [] if "x" in used else ["    (void)x;"]
        after = [
            f"    for (int i = 0; i < {size}; i++) state[{f'{start} + ' * bool(start)}i] = n{k}[i];"
            for k, (start, size) in enumerate(zip(starts, self.sizes, strict=False))
        ]
        scale = "{weight}_scale, " if self.int8 else ""
        call = f"product({{operand}}, {{weight}}, {scale}{{out}}, {{rows}}, {{columns}});"
        lines = [*before, self.stages.text(call), *after]
        ending = text.ending(n.ending, self.output_size)
        return (
            first
            + f"void {p}init_state(float *state)\n{{\n"
            + f"    for (int i = 0; i < {P}STATE_SIZE; i++) state[i] = {value};\n}}\n\n"
            + "/* Not the public function: in a shared library its name may be another one's. */\n"
            + "static void one_step(const float *restrict x, float *restrict state,\n"
            + "                     float *restrict y)\n{\n"
            + "\n".join(filter(None, lines))
            + f"\n{ending}}}\n\n"
            + f"void {p}step(const float *x, float *state, float *y)\n{{\n"
            + "    one_step(x, state, y);\n}\n"
        )

    def _token(self) -> tuple[str, int]:
        """Return the step of a token, and the bytes that it needs in addition to `step`."""
        n, p, P = self.network, self.p, self.p.upper()
        if n.table is None and not n.one_hot:
            return "", 0
        row = f"embedding + token * {P}INPUT_SIZE"
        if n.table is not None and not self.int8:
            return language.TOKEN.format(p=p, body=f"    one_step({row}, state, y);"), 0
        if n.one_hot:
            lines = [f"    float x[{P}INPUT_SIZE] = {{0}};", "    x[token] = 1;"]
        else:
            lines = [
                f"    const int8_t *const row = {row};",
                f"    float x[{P}INPUT_SIZE];",
                f"    for (int i = 0; i < {P}INPUT_SIZE; i++)",
                "        x[i] = embedding_scale[token] * (float)row[i];",
            ]
        lines.append("    one_step(x, state, y);")
        return language.TOKEN.format(p=p, body="\n".join(lines)), 4 * n.input_size
