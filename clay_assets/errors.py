"""The errors that clay_assets raises on purpose.

Every message says where (file, item, row), what is wrong and what to do. Permanent and temporary failures are different
classes, because only temporary ones are worth retrying.

Examples:
    >>> from clay_assets import ClayError, IndexChangedError, InputError, SourceError, StorageError, load_recipe
    >>> try:
    ...     recipe = load_recipe("clay_v9")
    ... except SourceError:  # try again later
    ...     raise
    ... except ClayError as error:  # wrong, and stays wrong
    ...     print(type(error).__name__)
    InputError
    >>> issubclass(IndexChangedError, InputError), issubclass(StorageError, OSError)
    (True, True)
"""

__all__ = ["ClayError", "IndexChangedError", "InputError", "SourceError", "StorageError"]


class ClayError(Exception):
    """Base of all errors raised on purpose by clay_assets."""


class InputError(ClayError, ValueError):
    """An input is invalid and a retry will not help: a file, an item, a recipe or a setting."""


class IndexChangedError(InputError):
    """The merged index has changed since chips were selected from it; select them again."""


class StorageError(ClayError, OSError):
    """`CLAY_STORAGE` cannot be read or written."""


class SourceError(ClayError, OSError):
    """A remote source did not answer, or answered incorrectly; the same call may succeed later."""
