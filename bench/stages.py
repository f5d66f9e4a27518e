"""Runs a stage of bench/device.sh and keeps a JSON file of it: a run that is cut loses nothing.

    python bench/stages.py FILE SECONDS COMMAND...

Lines of the command's output that are JSON objects are its figures, the others its log. The file is
there from the start, is written again while figures come, and whole at each moment; ``ended`` tells
whether the command has. It is stopped after so many seconds. Needs Python alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LOG_LINES = 400  # the last ones
_BETWEEN = 0.5  # seconds between two writings
TIMED_OUT = 124


def main(arguments: list[str]) -> int:
    """The command's exit status, or TIMED_OUT."""
    if len(arguments) < 3:
        print(__doc__)
        return 2
    path, limit, command = Path(arguments[0]), float(arguments[1]), arguments[2:]
    stage = Stage(path, limit, command)
    status = stage.run()
    print(stage.summary(), flush=True)
    return status


class Stage:
    """One command, and what is known of it so far.

    Attributes
    ----------
    record : dict
        What the file has.
    """

    def __init__(self, path: Path, limit: float, command: list[str]) -> None:
        self._path, self._limit, self._command = path, limit, command
        self._begun = self._written = time.monotonic()
        self.record: dict[str, Any] = {
            "stage": path.stem,
            "command": command,
            "limit_s": limit,
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "ended": False,
            "returncode": None,
            "timed_out": False,
            "figures": [],
            "log": [],
        }

    def run(self) -> int:
        self._write()
        with _stopped_by_signals():
            try:
                process = self._start()
            except OSError as error:
                self._note(str(error))
                return self._end(127)
            try:
                status = self._follow(process)
                self.record["timed_out"] = status is None
            finally:  # also if this process is told to stop
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                self._write()
        if status is not None:
            return self._end(status)
        self._end(TIMED_OUT)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may not let go of it
            process.wait(10)
        return TIMED_OUT

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # it may have children, which end with it
        )

    def _follow(self, process: subprocess.Popen[str]) -> int | None:
        """Note lines until the command ends; its status, or None if time is over before."""
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        closed, status = False, None
        deadline = self._begun + self._limit
        while (left := deadline - time.monotonic()) > 0 and (status is None or not closed):
            wait, line = min(left, _BETWEEN), None
            try:
                if closed:  # it may go on without its output
                    process.wait(wait)
                else:
                    line = lines.get(timeout=wait)
                    closed = line is None
            except subprocess.TimeoutExpired:
                pass
            except queue.Empty:
                if status is not None:  # a child of it may hold its output for as long as it likes
                    break
            if line is not None:
                self._note(line.rstrip("\n"))
            status = process.poll()
            if time.monotonic() - self._written > _BETWEEN:
                self._write()
        return status

    def summary(self) -> str:
        """A line for who waits."""
        record = self.record
        found = f"{record['stage']}: {len(record['figures'])} figures in {record['seconds']} s"
        if record["timed_out"]:
            found += f", stopped after {record['limit_s']:g} s"
        elif record["returncode"]:
            last = record["log"][-1] if record["log"] else "nothing"
            found += f", failed with {record['returncode']}: {last}"
        return f"{found}: {self._path}"

    def _note(self, line: str) -> None:
        figure = None
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                figure = json.loads(line)
        if figure is not None:
            self.record["figures"].append(figure)
        else:
            self.record["log"] = [*self.record["log"], line][-_LOG_LINES:]

    def _end(self, status: int) -> int:
        self.record.update(ended=True, returncode=status)
        self._write()
        return status

    def _write(self) -> None:
        self.record["seconds"] = round(time.monotonic() - self._begun, 1)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        os.replace(new, self._path)
        self._written = time.monotonic()


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Within it, SIGTERM and SIGINT raise SystemExit; where this is not the main thread, which has
    no handlers, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        sys.exit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            lines.put(line)
    lines.put(None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
