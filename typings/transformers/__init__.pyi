"""transformers as the type checker sees it: all names are Any.

Its own `__init__` names every model there is, and what is behind each imports it again: the checker
would read some 2,400 files, for half of its time.
"""

from typing import Any

def __getattr__(name: str) -> Any: ...
