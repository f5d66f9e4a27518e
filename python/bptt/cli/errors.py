"""How a sub-command ends when it cannot go on: one line for the user, and an exit code."""

from __future__ import annotations

__all__ = ["CommandError"]


class CommandError(Exception):
    """Printed as one line on stderr; exit code 2 is a wrong call, 1 a failure on the way."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
