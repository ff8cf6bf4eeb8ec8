"""The parts of a C file for language models: tokens, drawing, writing a text, a main program."""

from __future__ import annotations

from typing import Any

from ...errors import ArgumentError
from .text import string

TOKEN = """
void {p}step_token(int token, float *state, float *y)
{{
{body}
}}
"""

DRAW = """
/* A counter that passes through a hash of 32 bits (lowbias32 of C. Wellons): any seed is good. */
static float uniform(uint32_t *seed)
{{
    uint32_t x = *seed += UINT32_C(0x9e3779b9);
    x = (x ^ x >> 16) * UINT32_C(0x7feb352d);
    x = (x ^ x >> 15) * UINT32_C(0x846ca68b);
    return (float)((x ^ x >> 16) >> 8) * 0x1p-24f;
}}

int {p}draw(const float *y, float temperature, uint32_t *seed)
{{
    int best = 1;
    float total = 0;
    for (int i = 2; i < {P}VOCAB_SIZE; i++)
        if (y[i] > y[best]) best = i;
    if (!(temperature > 0)) return best;
    for (int i = 1; i < {P}VOCAB_SIZE; i++) total += expf((y[i] - y[best]) / temperature);
    total *= uniform(seed);
    for (int i = 1; i < {P}VOCAB_SIZE; i++) {{
        total -= expf((y[i] - y[best]) / temperature);
        if (total < 0) return i;
    }}
    return best;
}}

int {p}generate(const int *prefix, int length, int count, float temperature, uint32_t *seed,
             int stop, int *tokens)
{{
    float state[{P}STATE_SIZE], y[{P}OUTPUT_SIZE];
    {p}init_state(state);
    {p}step_token(0, state, y); /* the unknown token precedes every text */
    for (int i = 0; i < length; i++) {p}step_token(prefix[i], state, y);
    for (int n = 0; n < count; n++) {{
        tokens[n] = {p}draw(y, temperature, seed);
        if (tokens[n] == stop) return n;
        if (n + 1 < count) {p}step_token(tokens[n], state, y);
    }}
    return count;
}}
"""

TOKENS = """
static const char *const tokens[{n}] = {{
{texts}
}};

const char *{p}token_text(int id)
{{
    return tokens[id];
}}
{helpers}
int {p}encode(const char *text, int *ids, int capacity)
{{
    int n = 0;
    while (n < capacity) {{
{skip}        if (!*text) break;
        int best = 0, length = 0;
        const int whole = {whole};
        for (int i = 1; i < {P}VOCAB_SIZE; i++) {{
            const int found = common(text, tokens[i]);
            if ({fits}) {{ best = i; length = found; }}
        }}
        ids[n++] = best;
        text += best ? length : whole;
    }}
    return n;
}}
"""

CHARACTER = """
/* The bytes of the character at which a text begins. */
static int character(const char *text)
{
    int n = 1;
    while (((unsigned char)text[n] & 0xc0) == 0x80) n++;
    return n;
}

/* The bytes of a token if a text begins with it, else 0. */
static int common(const char *text, const char *token)
{
    int n = 0;
    for (; token[n]; n++)
        if (text[n] != token[n]) return 0;
    return n;
}
"""
WORD = """
static int is_letter(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'
        || (unsigned char)c >= 0x80;
}

/* The bytes of the word or the character at which a text begins. */
static int word(const char *text)
{
    int n = 0;
    while (is_letter(text[n])) n++;
    return n ? n : character(text);
}
"""

MAIN = """
#ifdef TINYGRAD_RNN_MAIN
/* A program: PREFIX [TOKENS] [TEMPERATURE] [SEED] prints the prefix and its continuation. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{{
    enum {{ MOST = 65536 }};
    static int prefix[MOST], made[MOST];
    const char *const text = argc > 1 ? argv[1] : "";
    const int length = {p}encode(text, prefix, MOST);
    int count = argc > 2 ? atoi(argv[2]) : 400;
    const float temperature = argc > 3 ? strtof(argv[3], NULL) : 0;
    uint32_t seed = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 0;
    count = count < MOST ? count : MOST;
    count = {p}generate(prefix, length, count, temperature, &seed, -1, made);
    fputs(text, stdout);
    for (int i = 0; i < count; i++) printf("{space}%s", tokens[made[i]]);
    putchar('\\n');
    return 0;
}}
#endif
"""

VECTOR_MAIN = """
#ifdef TINYGRAD_RNN_MAIN
/* A program: reads the inputs of the steps as numbers, and prints the outputs, a line a step. */
#include <stdio.h>

int main(void)
{{
    static float x[{P}INPUT_SIZE], state[{P}STATE_SIZE], y[{P}OUTPUT_SIZE];
    {p}init_state(state);
    for (;;) {{
        for (int i = 0; i < {P}INPUT_SIZE; i++)
            if (scanf("%f", &x[i]) != 1) return 0;
        {p}step(x, state, y);
        for (int i = 0; i < {P}OUTPUT_SIZE; i++)
            printf("%.9g%c", (double)y[i], i + 1 < {P}OUTPUT_SIZE ? ' ' : '\\n');
    }}
}}
#endif
"""


def drawing(p: str) -> str:
    """Return the functions that draw a token and write a text."""
    return DRAW.format(p=p, P=p.upper())


def vocabulary(p: str, vocab: Any) -> tuple[str, int]:
    """Return the tokens and `encode`, and the bytes of the tokens.

    Raises
    ------
    ArgumentError
        If a token cannot be a string in C.
    """
    for i, token in enumerate(vocab.tokens):
        if "\0" in token or any("\ud800" <= c <= "\udfff" for c in token):
            raise ArgumentError(
                f"save_c: token {i} of the vocabulary, {token!r}, cannot be a string in C: make "
                "the vocabulary of a text without it"
            )
    words, pieces = vocab.level == "word", vocab._tokenizer is not None
    text = TOKENS.format(
        p=p,
        P=p.upper(),
        n=len(vocab),
        texts="\n".join(f"    {string(t)}," for t in vocab.tokens),
        helpers=CHARACTER + WORD * words,
        skip="        while (*text == ' ' || (*text >= '\\t' && *text <= '\\r')) text++;\n" * words,
        whole="word(text)" if words else "character(text)",
        fits="found > length" if pieces and not words else "found == whole",
    )
    pointers = 4  # bytes, on a microcontroller
    return text, sum(len(t.encode()) + 1 + pointers for t in vocab.tokens)
