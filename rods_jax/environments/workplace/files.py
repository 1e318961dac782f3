"""Files: a file must be open to be written, and closed to be deleted."""

from collections.abc import Sequence
from typing import Literal

from rods_jax.environments.workplace.vocabulary import Record, Result, find, history


class FileName(Result):
    file_name: str


class FileNames(Result):
    file_names: list[str]


class Lines(Result):
    lines: int


class Shares(Result):
    shares: int


class FileCount(Result):
    files: int


class Files:
    """Shared files of an office; at most one is open at a time."""

    def __init__(self, files: Sequence[Record] = (), open_name: str = "", long_context: bool = False):
        self.files = list(files)  # {"file_name": str, "lines": [str], "shared_with": [str]}
        self.open_name = open_name  # "" when no file is open
        self._history = history("saved", long_context)

    def create_file(self, new_name: str) -> FileName:
        """Creates an empty file.

        Args:
            new_name: Name of the new file.
        """
        self._require_unused(new_name)
        self.files.append({"file_name": new_name, "lines": [], "shared_with": []})
        return {"file_name": new_name, **self._history}

    def open_file(self, file_name: str) -> Lines:
        """Opens a file for writing; no other file may be open.

        Args:
            file_name: Name of the file.
        """
        file = find(self.files, "file_name", file_name)
        if self.open_name:
            raise ValueError(f"file {self.open_name} is open")
        self.open_name = file_name
        return {"lines": len(file["lines"]), **self._history}

    def write_file(self, topic: str) -> Lines:
        """Adds a line to the open file.

        Args:
            topic: What the line is about.
        """
        lines = self._opened()["lines"]
        lines.append(topic)
        return {"lines": len(lines), **self._history}

    def close_file(self) -> FileName:
        """Closes the open file."""
        file_name = self._opened()["file_name"]
        self.open_name = ""
        return {"file_name": file_name, **self._history}

    def rename_file(self, file_name: str, new_name: str) -> FileName:
        """Gives a file another name.

        Args:
            file_name: Name of the file.
            new_name: Its new name.
        """
        file = find(self.files, "file_name", file_name)
        self._require_unused(new_name)
        file["file_name"] = new_name
        if self.open_name == file_name:
            self.open_name = new_name
        return {"file_name": new_name, **self._history}

    def share_file(self, file_name: str, person: str) -> Shares:
        """Lets a person read a file.

        Args:
            file_name: Name of the file.
            person: Who may read it.
        """
        shared_with = find(self.files, "file_name", file_name)["shared_with"]
        if person in shared_with:
            raise ValueError(f"{person} has file {file_name}")
        shared_with.append(person)
        return {"shares": len(shared_with), **self._history}

    def delete_file(self, file_name: str) -> FileCount:
        """Deletes a file that is neither open nor shared.

        Args:
            file_name: Name of the file.
        """
        file = find(self.files, "file_name", file_name)
        if self.open_name == file_name:
            raise ValueError(f"file {file_name} is open")
        if file["shared_with"]:
            raise ValueError(f"file {file_name} is shared")
        self.files.remove(file)
        return {"files": len(self.files), **self._history}

    def list_files(self, kind: Literal["all", "shared"] = "all") -> FileNames:
        """Lists the names of the files.

        Args:
            kind: All files, or only the shared ones.
        """
        names = [file["file_name"] for file in self.files if kind == "all" or file["shared_with"]]
        return {"file_names": names, **self._history}

    def _opened(self) -> Record:
        if not self.open_name:
            raise ValueError("no file is open")
        return find(self.files, "file_name", self.open_name)

    def _require_unused(self, name: str) -> None:
        if any(file["file_name"] == name for file in self.files):
            raise ValueError(f"file {name} exists")
