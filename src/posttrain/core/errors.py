"""The one exception that a user should ever see, as a single line."""


class UserError(Exception):
    """Something the user gave is wrong; the message names what, where and how to mend it."""
