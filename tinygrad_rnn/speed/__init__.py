"""Speed for any code: nothing here knows a cell."""

from . import fuse as fuse  # registers what the core's decorator does, before a cell is decorated
