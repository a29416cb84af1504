"""The errors that a user of clay_assets can meet.

Every message says what was wrong, where (file, item, row) and what to do. Permanent and passing failures are
different classes, because only the second kind is worth trying again.
"""


class ClayError(Exception):
    """Base of all errors raised on purpose by clay_assets."""


class InputError(ClayError, ValueError):
    """Something handed to us is wrong and stays wrong: a file, an item, a recipe, a setting."""


class IndexChangedError(InputError):
    """The merged index is not the one that chips were selected from; select them again."""


class StorageError(ClayError, OSError):
    """`CLAY_STORAGE` cannot be read or written."""


class SourceError(ClayError, OSError):
    """A remote source did not answer, or answered nonsense; the same call may succeed later."""
