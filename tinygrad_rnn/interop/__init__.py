"""Exchange with other libraries, and networks as files that run without this one."""

from .c_export import CFile as CFile
from .c_export import save_c as save_c
