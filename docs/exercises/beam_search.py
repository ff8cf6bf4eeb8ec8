"""Beam search over any model.

`log_p(prefix)` returns the logarithms of the probabilities of the next token after a prefix, a
tuple of ids, as an array. Token 0 is the end. The answer returns the likeliest text that a beam of
`width` prefixes finds, as a pair of its log-probability and its ids. The ids end with 0, or there
are `longest` of them. With a width of 1 this is greedy search; with a large one it is exact.
"""

import itertools

import numpy as np


def greedy(log_p, longest):
    """Take the likeliest token at each step."""
    total, prefix = 0.0, ()
    while len(prefix) < longest and prefix[-1:] != (0,):
        scores = log_p(prefix)
        best = int(np.argmax(scores))
        total, prefix = total + scores[best], (*prefix, best)
    return total, prefix


def stub(log_p, width, longest):
    """Return the log-probability and the ids. This keeps one prefix, whatever the width is."""
    return greedy(log_p, longest)


def solution(log_p, width, longest):
    """Extend every open prefix by every token, and keep the best, counted from the beginning."""
    beams, done = [(0.0, ())], []
    for _ in range(longest):
        grown = [
            (total + score, (*prefix, token))
            for total, prefix in beams
            for token, score in enumerate(log_p(prefix))
        ]
        best = sorted(grown, reverse=True)[:width]
        done += [beam for beam in best if beam[1][-1] == 0]
        beams = [beam for beam in best if beam[1][-1] != 0]
    return max(done + beams)


def wrong(log_p, width, longest):
    """Stop at the first text that ends; a longer one can be likelier."""
    beams = [(0.0, ())]
    for _ in range(longest):
        grown = [
            (total + score, (*prefix, token))
            for total, prefix in beams
            for token, score in enumerate(log_p(prefix))
        ]
        beams = sorted(grown, reverse=True)[:width]
        done = [beam for beam in beams if beam[1][-1] == 0]
        if done:
            return max(done)
    return max(beams)


def check(answer):
    """Compare width 1 with greedy search and a large width with all texts, on random models."""
    tokens, longest, gained = 3, 4, 0
    for seed in range(20):

        def log_p(prefix, seed=seed):
            """Return the numbers of a random model, which draws them for each prefix."""
            a = 2 * np.random.default_rng([seed, 7, *prefix]).normal(size=tokens)
            return a - np.log(np.exp(a).sum())

        def text_of(result):
            total, ids = result
            ids = tuple(int(i) for i in ids)
            exact = sum(log_p(ids[:t])[i] for t, i in enumerate(ids))
            assert abs(total - exact) < 1e-9, (
                f"the log-probability of {ids} is {exact:.4f}, and the answer says {total:.4f}"
            )
            return exact, ids

        simple = greedy(log_p, longest)
        found = text_of(answer(log_p, 1, longest))
        assert found[1] == simple[1], f"width 1 returns {found[1]}, and greedy search {simple[1]}"

        texts = [
            ids
            for n in range(1, longest + 1)
            for ids in itertools.product(range(tokens), repeat=n)
            if 0 not in ids[:-1] and (n == longest or ids[-1] == 0)
        ]
        best = max((sum(log_p(ids[:t])[i] for t, i in enumerate(ids)), ids) for ids in texts)
        found = text_of(answer(log_p, tokens**longest, longest))
        assert found[1] == best[1], (
            f"a width of {tokens**longest} returns {found[1]} with {found[0]:.4f}; the likeliest "
            f"text is {best[1]} with {best[0]:.4f}"
        )
        gained += text_of(answer(log_p, 2, longest))[0] - simple[0]
    assert gained > 2.2, f"width 2 gains {gained:.3f} over greedy search on 20 models: too little"
