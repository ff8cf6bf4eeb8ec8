"""Text: corpora, vocabularies, and minibatches of consecutive tokens.

>>> import tinygrad_rnn as tg
>>> train, valid = tg.data.text.split(tg.data.text.corpus("python_docs"))
>>> vocab = tg.data.text.Vocabulary(train)  # of the training text only
>>> x, y = next(tg.data.text.sequential(vocab.encode(train), batch_size=32, steps=35))
>>> x.shape, y.shape
((35, 32), (35, 32))

A text too large for memory is read from its file in pieces (`TextFile`), and its ids are written to
another file (`Vocabulary.encode`).
"""

from .corpora import corpus as corpus
from .corpora import sha256 as sha256
from .partition import evaluation as evaluation
from .partition import random as random
from .partition import sequential as sequential
from .partition import split as split
from .text_file import TextFile as TextFile
from .vocabulary import Vocabulary as Vocabulary
