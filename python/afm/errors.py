"""What libafm raises, beside Python's own ValueError and TypeError for bad options."""


class Error(Exception):
    """Base of the errors of libafm."""


class DataError(Error, ValueError):
    """A table, schema, label or id that breaks a rule, or data that does not fit a model."""


class FormatError(Error, ValueError):
    """A file that is truncated, altered, foreign, or written by a newer libafm."""


class IoError(Error, OSError):
    """The operating system refused: no space, no permission, a file that vanished."""
