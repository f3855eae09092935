"""What a person can cause and mend; a command prints it as one line and exits with status 1."""


class UserError(ValueError):
    """Says what is wrong, where, what was expected and got, and the next step."""
