"""Errors whose text a caller may see."""


class PublicError(Exception):
    """Base of the errors that a caller is meant to see; the text is safe to send to a client."""


class InvalidInput(PublicError, ValueError):
    """A field of a request is wrong; the text names the field, the limit and the value."""
