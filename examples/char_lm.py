"""Train a character language model on a text, then let it write.

    python examples/char_lm.py                                     # the reference text of Python
    python examples/char_lm.py --text book.txt --cell gru --epochs 5 --prefix "Once "
    python examples/char_lm.py --text time_machine --clean letters --max-tokens 10000 --cell rnn \
        --optimizer sgd --lr 1 --epochs 500                        # the setting of the book

The end of the text (``--valid``) is held out; ``--max-tokens`` then shortens what is left to train
on, and the vocabulary is made of that. The training figures are the mean over the last epoch, taken
while the weights were moving and with dropout if there is any; the validation figures are taken at
the end, every held-out character predicted once, the state carried along.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tg

F, text_data = tg.functional, tg.data.text

CELLS = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
OPTIMIZERS = {"sgd": tg.optim.SGD, "adam": tg.optim.Adam, "rmsprop": tg.optim.RMSprop}


class CharLM(tg.nn.Module):
    """One-hot characters or an embedding, a recurrent layer, and logits for the next character."""

    def __init__(self, vocab_size: int, args: argparse.Namespace) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding = None
        if args.input == "embedding":
            self.embedding = tg.nn.Embedding(vocab_size, args.hidden, device=args.device)
        self.rnn = CELLS[args.cell](
            args.hidden if self.embedding else vocab_size,
            args.hidden,
            args.layers,
            dropout=args.dropout,
            device=args.device,
        )
        self.dropout = tg.nn.Dropout(args.dropout)
        self.head = tg.nn.Linear(args.hidden, vocab_size, device=args.device)

    def forward(self, ids: tg.Tensor, state: Any = None) -> tuple[tg.Tensor, Any]:
        x = self.embedding(ids) if self.embedding else F.one_hot(ids, self.vocab_size)
        output, state = self.rnn(x, state)
        return self.head(self.dropout(output)), state


def train_epoch(model: CharLM, windows: Iterable[Any], optimizer: Any, args: Any) -> Any:
    """Take one step of the optimiser for each window; return the losses before the steps."""
    losses = tg.metrics.Perplexity()
    model.train()
    state = None
    for x, y in windows:
        logits, state = model(x, state)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(model.parameters(), args.clip, error_if_nonfinite=True)
        optimizer.step()
        # Consecutive windows carry the state, and the gradient ends between them; others start anew.
        state = tg.bptt.detach(state) if args.partition == "sequential" else None
        losses.update(loss.item(), y.size)
    return losses


@tg.no_grad()
def evaluate(model: CharLM, ids: np.ndarray, args: Any) -> Any:
    """Predict every character of a text but the first exactly once."""
    losses = tg.metrics.Perplexity()
    model.eval()
    state = None
    for x, y in text_data.evaluation(ids, args.batch, args.steps, device=args.device):
        logits, state = model(x, state)
        nats = F.cross_entropy(logits, y, reduction="none", ignore_index=-1)
        losses.total += nats.sum().item()
    losses.count = len(ids) - 1
    return losses


def choose(logits: np.ndarray, args: Any) -> int:
    """Draw the next character: of the likeliest ``top_k``, the fewest that hold ``top_p``."""
    logits = logits.astype(np.float64)
    logits[0] = -np.inf  # never the unknown token
    if args.temperature == 0:
        return int(logits.argmax())
    likeliest = np.argsort(-logits)[: args.top_k]
    p = np.exp((logits[likeliest] - logits[likeliest[0]]) / args.temperature)
    p /= p.sum()
    enough = np.searchsorted(p.cumsum(), args.top_p) + 1
    p = p[:enough] / p[:enough].sum()
    return int(tg.random.generator().choice(likeliest[:enough], p=p))


@tg.no_grad()
def write(model: CharLM, vocab: text_data.Vocabulary, args: Any) -> str:
    """Return the prefix and ``length`` characters that the model makes follow it."""
    model.eval()
    ids, state, written = vocab.encode(args.prefix).astype(np.int64), None, []
    for _ in range(args.length):
        logits, state = model(tg.tensor(ids[:, None], device=args.device), state)
        ids = np.array([choose(logits[-1, 0].numpy(), args)])
        written.append(ids[0])
    return args.prefix + vocab.decode(np.array(written, np.int64))


def report(losses: Any, text: str, seconds: float) -> dict[str, float]:
    """Return the figures of a text, of which ``losses`` are those of its characters."""
    bytes_per_char = len(text.encode("utf-8", "surrogatepass")) / len(text)
    return {
        "loss": losses.nats,
        "perplexity": losses.value,
        "bits_per_char": losses.bits,
        "bits_per_byte": losses.bits / bytes_per_char,
        "tokens_per_s": losses.count / seconds,
    }


def show(name: str, figures: dict[str, float]) -> None:
    print(
        "{name:>10}: loss {loss:.4f}, perplexity {perplexity:.3f}, {bits_per_char:.3f} bits/char, "
        "{bits_per_byte:.3f} bits/byte, {tokens_per_s:,.0f} tokens/s".format(name=name, **figures)
    )


def progress(total: int) -> Any:
    """Return a bar of tqdm, or None where it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit=" tokens", unit_scale=True, leave=False, disable=None)


def counted(windows: Iterable[Any], bar: Any) -> Iterator[Any]:
    """Hand the windows on, and move the bar."""
    for x, y in windows:
        yield x, y
        if bar is not None:
            bar.update(y.size)


def save(path: Path, model: CharLM, vocab: text_data.Vocabulary, args: Any) -> None:
    """Write the weights, and the vocabulary and the options as JSON; all of it or nothing."""
    about = {"vocabulary": vocab.state_dict(), "options": vars(args) | {"save": str(path)}}
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about, default=str)), **model.state_dict())
    os.replace(temporary, path)


def plot(path: Path, curve: list[tuple[int, float, float]]) -> None:
    """Draw the loss of training and validation text over the epochs."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: it needs matplotlib: pip install 'tinygrad-rnn[plot]'", file=sys.stderr)
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss (nats a character)")
    epochs, train, valid = zip(*curve, strict=True)
    axes.plot(epochs, train, ".-", label="training")
    axes.plot(epochs, valid, ".-", label="validation")
    axes.legend()
    figure.savefig(path)


def arguments() -> argparse.Namespace:
    summary, _, notes = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=notes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--text", default="python_docs", help="a corpus by name, or the path of a file")
    add("--encoding", default="utf-8-sig")
    add("--clean", choices=["none", "letters"], default="none")
    add("--valid", type=float, default=0.1, help="the share of the text that is held out")
    add("--max-tokens", type=int, help="train on no more characters than these")
    add("--partition", choices=["sequential", "random"], default="sequential")
    add("--input", choices=["onehot", "embedding"], default="onehot")
    add("--cell", choices=list(CELLS), default="lstm")
    add("--hidden", type=int, default=256)
    add("--layers", type=int, default=1)
    add("--steps", type=int, default=35, help="characters in a window")
    add("--batch", type=int, default=32, help="windows beside each other")
    add("--epochs", type=int, default=8)
    add("--optimizer", choices=list(OPTIMIZERS), default="adam")
    add("--lr", type=float, default=4e-3)
    add("--decay", choices=["none", "cosine"], default="none")
    add("--clip", type=float, default=1.0, help="the largest norm of the gradient")
    add("--dropout", type=float, default=0.0)
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="cpu or cuda")
    add("--prefix", default="the ", help="what the model continues")
    add("--length", type=int, default=400, help="characters to write")
    add("--temperature", type=float, default=0.7, help="0 takes the likeliest character")
    add("--top-k", type=int, help="draw from the k likeliest characters")
    add("--top-p", type=float, default=1.0, help="draw from the fewest that hold this probability")
    add("--save", type=Path, help="write the weights and the vocabulary to this file (.npz)")
    add("--plot", type=Path, help="draw the losses to this file (needs matplotlib)")
    add("--json", action="store_true", help="print all figures as a last line of JSON")
    add("--smoke", action="store_true", help="a few seconds, to see that it runs")
    args = parser.parse_args()
    if args.smoke:
        args.max_tokens, args.hidden, args.epochs, args.length = 5000, 32, 1, 80
    if not args.prefix:
        parser.error("--prefix: the model needs a character to start from")
    for path in (args.save, args.plot):
        if path is not None and not path.parent.is_dir():
            parser.error(f"{path}: there is no such directory")
    return args


def main() -> None:
    args = arguments()
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character
    tg.manual_seed(args.seed)
    clean = None if args.clean == "none" else args.clean
    text = text_data.corpus(args.text, encoding=args.encoding, clean=clean)
    train_text, valid_text = text_data.split(text, args.valid)
    train_text = train_text[: args.max_tokens]
    vocab = text_data.Vocabulary(train_text)
    train_ids, valid_ids = vocab.encode(train_text), vocab.encode(valid_text)
    print(f"{args.text}: {len(text):,} characters, sha256 {text_data.sha256(text)}")
    print(f"{len(train_ids):,} to train on, {len(valid_ids):,} held out", end="")
    print(f", vocabulary of {len(vocab)}", end="")
    print(f", {vocab.unknown_rate(valid_ids):.3%} unknown" if len(valid_ids) else "")

    model = CharLM(len(vocab), args)
    print(model)
    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=args.lr)
    make_windows = getattr(text_data, args.partition)
    schedule = tg.optim.schedule.Scheduler(
        optimizer,
        tg.optim.schedule.cosine(args.epochs) if args.decay == "cosine" else tg.optim.schedule.constant(),
    )
    bar = progress(args.epochs * len(train_ids))
    say = print if bar is None else bar.write
    start = time.perf_counter()
    training_seconds, tokens = 0.0, 0
    for epoch in range(1, args.epochs + 1):
        began = time.perf_counter()
        windows = make_windows(train_ids, args.batch, args.steps, device=args.device)
        losses = train_epoch(model, counted(windows, bar), optimizer, args)
        schedule.step()
        training_seconds += time.perf_counter() - began
        if epoch * 10 % args.epochs < 10:
            line=f"epoch {epoch}: perplexity {losses.value:.3f} {time.perf_counter()-start:.0f}s"
            if len(valid_ids):
                line += f" valid {evaluate(model, valid_ids, args).value:.3f}"
            say(line)
    show("train", report(losses, train_text, training_seconds/args.epochs))
    print(write(model, vocab, args))


if __name__ == "__main__":
    main()
