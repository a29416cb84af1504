"""An extension of griffe, which reads docstrings for the site: what follows `Returns:` is prose, not a type.

Of "Points in EPSG:4326", griffe takes what is left of the colon for the type. So the annotated type is put before it.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

RETURNS = re.compile(r"^(Returns:\n\s+)", re.MULTILINE)


class Returns(griffe.Extension):
    """Puts the annotated type before what a docstring says of the value returned."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Change the docstring of a function."""
        if func.docstring is not None and func.returns is not None:
            func.docstring.value = RETURNS.sub(lambda found: f"{found[1]}{func.returns}: ", func.docstring.value)
