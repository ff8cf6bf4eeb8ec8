"""N-grams compared with neural language models: one text, one split, one vocabulary.

    python examples/ngram_vs_rnn.py
    python examples/ngram_vs_rnn.py --text book.txt --seconds 120

The last tenth of the text is held out, and every character of it is predicted once. The n-grams'
smoothing is chosen on the end of the training text; each network learns for --seconds of processor
time, independent of other programs. The ranking is that of the contexts: none, one character, two
(a table for three would be V times as large, and mostly empty); eight in the MLP, whose embeddings
let similar contexts share parameters; and in the recurrent networks all of the text before, as far
as their state keeps it: gates keep it longer than the plain tanh.

The targets: a longer context is better among the n-grams, and every network beats the trigram.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import Any

import numpy as np

import tinygrad_rnn as tg

models, text_data = tg.models, tg.data.text


def learn(model: Any, ids: np.ndarray, seconds: float, lr: float = 4e-3) -> Any:
    """Train a network for some seconds of processor time; the learning rate decays to zero."""
    optimizer, began, over = tg.optim.Adam(model.parameters(), lr=lr), time.process_time(), 0.0
    while over < 1:
        state = None
        for x, y in text_data.sequential(ids, batch_size=32, steps=35):
            logits, state = model(x, tg.bptt.detach(state))
            loss = tg.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            tg.optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.lr = lr * (1 + math.cos(math.pi * over)) / 2
            optimizer.step()
            over = (time.process_time() - began) / seconds
            if over >= 1:
                break
    return model


def run(args: argparse.Namespace) -> int:
    tg.manual_seed(args.seed)
    text = text_data.corpus(args.text, args.encoding, args.clean)
    train, valid = text_data.split(text[:10_000] if args.smoke else text)
    vocab = text_data.Vocabulary(train)
    ids, held_out = vocab.encode(train), vocab.encode(valid)
    print(f"{args.text}: {len(text):,} characters, sha256 {text_data.sha256(text)[:16]}")

    built: dict[str, Any] = {
        name: models.NGram(n, vocab).tune(ids)
        for n, name in enumerate(("unigram", "bigram", "trigram"), 1)
    }
    for n, size in enumerate(built["trigram"].table_sizes, 1):
        print(f"{size:,} of {len(vocab) ** n:,} possible {n}-grams occur")
    built["neural LM"] = models.NeuralLM(8, vocab, 32, args.hidden)
    for name in ("RNN", "GRU", "LSTM"):
        cell = getattr(tg.nn, f"{name}Cell")
        built[name] = models.RecurrentLM(cell, vocab, args.hidden, embedding_dim=64)
    for name in list(built)[3:]:
        learn(built[name], ids, args.seconds)

    figures = models.compare(built, held_out)
    print(f"{'':10} perplexity  bits a character")
    for name, f in figures.items():
        print(f"{name:10} {f.perplexity:10.3f} {f.bits:17.3f}")
    unknown = figures["LSTM"].unknown_rate
    p = {name: f.perplexity for name, f in figures.items()}
    print(f"{args.seconds:g} s each, {unknown:.3%} unknown, perplexity: ", end="")
    print(", ".join(f"{name} {value:.2f}" for name, value in p.items()))
    counted = p["unigram"] > p["bigram"] > p["trigram"]
    return int(not (args.smoke or (counted and max(list(p.values())[3:]) < p["trigram"])))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare language models.")
    parser.add_argument("--text", default="python_docs", help="python_docs, or a file")
    parser.add_argument("--encoding", default="utf-8-sig", help="of the file")
    parser.add_argument("--clean", choices=["letters"], help="a-z and space only")
    parser.add_argument("--seconds", type=float, default=60, help="of processor time to train each")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="half a second each, no target")
    args = parser.parse_args()
    args.seconds = 0.5 if args.smoke else args.seconds
    if not args.seconds > 0 or args.hidden < 1:
        parser.error("--seconds must be above 0, --hidden at least 1")
    try:
        return run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"ngram_vs_rnn: {error}")


if __name__ == "__main__":
    sys.exit(main())
