"""Output folders of the commands: new ones, with a summary that is written last."""

import json
from pathlib import Path
from typing import Any


def new_folder(output: str | Path) -> Path:
    """The path, if nothing stands there yet; the folder is made when there is something to write.

    Raises:
        ValueError: if it is a file or a folder that holds something.
    """
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; name a new one")
    return folder


def write_summary(folder: Path, content: dict[str, Any]) -> None:
    """`summary.json`: strict JSON, names of any type as text."""
    text = json.dumps(content, indent=2, default=str, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
