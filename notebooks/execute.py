"""Execute notebooks from top to bottom; with --write, store their outputs in place.

Execution times and kernel versions are left out, so that a second run of the same code changes
nothing but figures that really differ.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> None:
    """Parse the command line and execute every notebook."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true", help="store the outputs in the files")
    parser.add_argument("--timeout", type=int, default=600, help="seconds allowed for one cell")
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        start = time.perf_counter()
        notebook = execute(path, arguments.timeout)
        if arguments.write:
            nbformat.write(notebook, path)
        print(f"{path}: {time.perf_counter() - start:.1f} s", flush=True)
    print(f"{len(arguments.notebooks)} notebooks executed")


def execute(path: Path, timeout: int) -> nbformat.NotebookNode:
    """Run one notebook in its own folder with this Python; raise at the first failing cell."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    notebook.metadata.pop("language_info", None)
    return notebook


if __name__ == "__main__":
    sys.exit(main())
