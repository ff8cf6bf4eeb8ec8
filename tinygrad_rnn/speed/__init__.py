"""Speed for any code: nothing here knows a cell."""

from . import fuse as fuse  # registers what the core's decorator does, before a cell is decorated
from . import scan as scan  # registers how a loop over time becomes one operation
