"""What a method's class must say of itself, read without a model."""

import inspect
import re
from collections.abc import Iterator

from latentbench.option import Option

SCOPES = ("image", "global", "model")


def faults(method: Option) -> Iterator[str]:
    """Yield what is missing in a method's declarations, a sentence each."""
    cls = method.cls
    own = [p for p in inspect.signature(cls.__init__).parameters.values() if p.name != "self"]
    if not getattr(cls, "paper", ""):
        yield "it names no paper: set the class attribute `paper` to title and section"
    elif not cls.paper_of(method.config):
        yield "`paper_of` names no paper for its settings: return title and section"
    if cls.scope not in SCOPES:
        yield f"scope is {cls.scope!r}; allowed: {', '.join(SCOPES)}"
    if not cls.verbs():
        yield "it overrides no verb, so there is nothing that it can do"
    for verb in sorted(cls.verbs()):
        if not cls.required([verb], method.config)[0]:
            yield f"`requires` names no space for the verb {verb}"
    for verb in sorted({*cls.requires, *cls.needs} - cls.verbs()):
        yield f"`requires` or `needs` names the verb {verb}, which it does not have"
    for p in own:
        if p.kind is not p.KEYWORD_ONLY or p.annotation is p.empty:
            yield f"the setting {p.name} must be keyword-only and typed"
    text = (inspect.getdoc(cls) or "").partition("Args:")[2]
    for name in sorted({p.name for p in own} - set(re.findall(r"^\s+(\w+): ", text, re.M))):
        yield f"the docstring's Args do not explain the setting {name}"
    for name in sorted({p.name for p in own} ^ set(method.config)):
        yield f"the setting {name} is in the constructor or in the yaml, and not in the other"
