"""The table of primitives: every gradient rule of the library, one file per family.

Names and semantics are NumPy's. Rules call primitives as ``F.<function>``. A rule named
``<op>_vjp_<argument>`` returns the gradient of that argument. A rule drops a gradient by selection
(``F.where``), never by multiplication with a mask: 0 times an infinite gradient, such as that of
sqrt at 0, is nan.

Functions with NumPy's argument handling (lists of arrays, negative axes, masks) are in
`tinygrad_rnn.tensors`. Where both have a function of one name, this one is the primitive.
"""

from .arithmetic import *
from .comparison import *
from .conversion import *
from .cross_entropy import *
from .exponential import *
from .gradient import *
from .indexing import *
from .linalg import *
from .normalize import *
from .reduce import *
from .shape import *
from .softmax import *
