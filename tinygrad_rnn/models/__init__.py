"""Models for whole tasks: classification of sequences, forecasts, and language models.

`Classifier` and `Forecaster` are recurrent layers of any cell with a head. The language models have
one interface: n-grams, an MLP over a window, recurrent networks. All have ``save(path)``, and
`load` returns the model of a file.

>>> import tinygrad_rnn as tg
>>> train, valid = tg.data.text.split("the time traveller and the time machine " * 9)
>>> vocab = tg.data.text.Vocabulary(train)
>>> bigram = tg.models.NGram(2, vocab).fit(train)
>>> trigram = tg.models.NGram(3, vocab).fit(train)
>>> scores = tg.models.compare({"bigram": bigram, "trigram": trigram}, valid)
>>> scores["trigram"].perplexity < scores["bigram"].perplexity < len(vocab)
True
"""

from .classifier import Classifier as Classifier
from .forecaster import Forecaster as Forecaster
from .language import LanguageModel as LanguageModel
from .language import Scores as Scores
from .language import compare as compare
from .network import NeuralLM as NeuralLM
from .network import RecurrentLM as RecurrentLM
from .ngram import NGram as NGram
from .saved import load as load
