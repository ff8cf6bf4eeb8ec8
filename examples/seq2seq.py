"""Translate written dates into ISO dates: an encoder, attention, a decoder, beam search.

    python examples/seq2seq.py

"Monday, 9 March 1987" or "Mar 9, 1987" becomes "1987-03-09". A bidirectional GRU encodes the
characters; a GRU generates the output and attends to the encodings at every step, with the
dot-product attention of Luong, Pham and Manning 2015 (Effective Approaches to Attention-based
Neural Machine Translation), sections 3 and 3.1. Beam search keeps the --beam likeliest prefixes.

The target: 99 % of the dates correct in every character, on days that are not in the training set.
"""

from __future__ import annotations

import argparse
import datetime
import sys

import numpy as np

import tinygrad_rnn as tg

MONTHS = "January February March April May June July August September October November December"
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FORMS = ("{d} {month} {y}", "{month:.3} {d}, {y}", "{day}, {d} {month} {y}", "{d}.{m}.{y}")
BEGIN, END = "<", ">"
FIRST, LAST = (datetime.date(year, 1, 1).toordinal() for year in (1900, 2100))
vocab = tg.data.text.Vocabulary(f"0123456789 ,.-{BEGIN}{END}{MONTHS}{DAYS}")


def dates(n: int, new: bool, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return pairs of a written and an ISO date; every tenth day is for the test (`new`)."""
    pairs = []
    while len(pairs) < n:
        day = int(rng.integers(FIRST, LAST))
        if (day % 10 == 0) == new:
            date = datetime.date.fromordinal(day)
            parts = {"d": date.day, "m": date.month, "y": date.year, "day": DAYS[date.weekday()]}
            month = MONTHS.split()[date.month - 1]
            pairs.append((str(rng.choice(FORMS)).format(month=month, **parts), date.isoformat()))
    return pairs


def padded(texts: list[str]) -> tuple[tg.Tensor, np.ndarray]:
    """Return the ids (T, B) of texts, padded with 0, and their lengths."""
    lengths = np.array([len(text) for text in texts])
    ids = np.zeros((lengths.max(), len(texts)), np.int64)
    for column, text in enumerate(texts):
        ids[: len(text), column] = vocab.encode(text)
    return tg.tensor(ids), lengths


class Translator(tg.nn.Module):
    """An encoder of the input to a memory (S, B, H), and a decoder that attends to it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = tg.nn.Embedding(len(vocab), 32)
        self.encoder = tg.nn.GRU(32, hidden // 2, bidirectional=True)
        self.decoder = tg.nn.GRU(32, hidden)
        self.combine = tg.nn.Linear(2 * hidden, hidden)
        self.head = tg.nn.Linear(hidden, len(vocab))

    def encode(self, texts: list[str]) -> tuple[tg.Tensor, np.ndarray, tg.Tensor]:
        """Return the memory, its padding mask (B, 1, S), and the decoder's first state."""
        ids, lengths = padded(texts)
        memory, state = self.encoder(self.embedding(ids), lengths=lengths)
        padding = np.arange(len(ids.numpy())) >= lengths[:, None]
        return memory, padding[:, None], tg.concatenate([state[:1], state[1:]], axis=-1)

    def decode(
        self, ids: tg.Tensor, memory: tg.Tensor, padding: np.ndarray, state: tg.Tensor
    ) -> tuple[tg.Tensor, tg.Tensor]:
        """Return the logits (T, B, V) of the next ids after ids (T, B), and the new state."""
        h, state = self.decoder(self.embedding(ids), state)
        scores = tg.einsum("tbh,sbh->bts", h, memory)
        weights = tg.softmax(tg.where(tg.tensor(padding), -1e9, scores), axis=-1)
        context = tg.einsum("bts,sbh->tbh", weights, memory)
        return self.head(tg.tanh(self.combine(tg.concatenate([h, context], axis=-1)))), state

    def forward(self, texts: list[str], ids: tg.Tensor) -> tg.Tensor:
        """Return the logits of the ids that follow ids (T, B) in the translations of texts."""
        return self.decode(ids, *self.encode(texts))[0]


@tg.no_grad()
def translate(model: Translator, text: str, width: int) -> str:
    """Return the likeliest translation that a beam search of this width finds."""
    memory, padding, state = model.encode([text])
    beams, done = [(0.0, BEGIN)], []
    for _ in range(12):
        ids, _ = padded([written[-1] for _, written in beams])
        repeated = tg.broadcast_to(memory, (memory.shape[0], len(beams), memory.shape[2]))
        logits, state = model.decode(ids, repeated, padding, state)
        log_p = np.array([[p] for p, _ in beams]) + tg.log_softmax(logits[0], axis=-1).numpy()
        best = np.argsort(-log_p, axis=None)[:width]
        rows, tokens = np.unravel_index(best, log_p.shape)
        grown = [
            (float(log_p[r, t]), beams[r][1] + vocab.tokens[t])
            for r, t in zip(rows, tokens, strict=True)
        ]
        done += [beam for beam in grown if beam[1].endswith(END)]
        open_ = [i for i, beam in enumerate(grown) if not beam[1].endswith(END)]
        beams, state = [grown[i] for i in open_], state[:, rows[open_]]
        if not beams or (done and max(done) >= max(beams)):
            break  # a longer text is less likely
    return max(done or beams)[1][1:].removesuffix(END)


def main() -> int:
    parser = argparse.ArgumentParser(description="Translate dates.")
    parser.add_argument("--steps", type=int, default=300, help="minibatches to train on")
    parser.add_argument("--beam", type=int, default=4, help="prefixes that are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="three minibatches, no target")
    args = parser.parse_args()
    if args.steps < 1 or args.beam < 1:
        parser.error("--steps and --beam must be at least 1")
    steps, tests = (3, 5) if args.smoke else (args.steps, 500)
    tg.manual_seed(args.seed)
    model, rng = Translator(hidden=128), tg.random.generator(args.seed)

    def batch() -> tuple[list[str], tg.Tensor, tg.Tensor]:
        pairs = dates(64, False, rng)
        ids, _ = padded([BEGIN + iso + END for _, iso in pairs])
        return [text for text, _ in pairs], ids[:-1], ids[1:]

    decay = tg.training.Schedule(tg.optim.schedule.cosine(steps), per="step")
    tg.fit(
        model,
        (batch() for _ in range(steps)),
        loss=tg.functional.cross_entropy,
        optimizer=tg.optim.Adam(model.parameters(), lr=4e-3),
        epochs=1,
        every=100,
        callbacks=[tg.training.ClipNorm(1.0), decay, tg.training.Progress()],
    )

    pairs = dates(tests, True, rng)
    print(f"{pairs[0][0]!r} becomes {translate(model, pairs[0][0], args.beam)!r}")
    correct = {
        width: sum(translate(model, text, width) == iso for text, iso in pairs) / tests
        for width in (1, args.beam)
    }
    print(f"correct: greedy {correct[1]:.1%}, beam of {args.beam} {correct[args.beam]:.1%}")
    return int(not args.smoke and correct[args.beam] < 0.99)


if __name__ == "__main__":
    sys.exit(main())
