"""The built-in tasks: one file each."""

from .adding import Adding
from .digits import Digits
from .task import Task

__all__ = ["TASKS", "Task"]

TASKS: dict[str, type[Task]] = {"digits": Digits, "adding": Adding}
