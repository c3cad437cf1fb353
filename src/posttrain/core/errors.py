"""The only exception that a user should see, as a single line."""


class UserError(Exception):
    """The user's input is wrong; the message says what, where and how to fix it."""


class DivergedError(UserError):
    """A model's output is not finite; `core.loop.at_step` adds the step."""
