"""Files of arrays with a header: NumPy archives, no pickles, no code, written in one piece."""

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

HEADER, TYPES = "header", "types"


def write(path: Path, arrays: dict[str, np.ndarray], header: Any, *, compress: bool) -> None:
    """Write to a temporary neighbour, then rename: a killed run leaves the last whole file.

    Args:
        path: folders are made.
        arrays: plain arrays by name, none called "header" or "types". NumPy archives lose the types
            that NumPy does not know (bfloat16): such arrays are stored as bits, with their types.
        header: anything that JSON can hold.
        compress: smaller and slower.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    types = {name: str(x.dtype) for name, x in arrays.items() if x.dtype.kind == "V"}
    bits = {
        name: x.view(f"u{x.dtype.itemsize}") if name in types else x for name, x in arrays.items()
    }
    texts = {HEADER: np.array(json.dumps(header)), TYPES: np.array(json.dumps(types))}
    with open(temporary, "wb") as file:
        stored = {**bits, **texts}
        np.savez_compressed(file, **stored) if compress else np.savez(file, **stored)
    os.replace(temporary, path)


def read(path: Path, what: str) -> tuple[dict[str, np.ndarray], Any]:
    """Arrays and header of a file.

    Args:
        path: of a file that `write` made.
        what: what the file should be; the error says that it is not.

    Raises:
        ValueError: if the file is absent, damaged, or of another kind.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(str(arrays.pop(HEADER)))
        for name, stored in json.loads(str(arrays.pop(TYPES, "{}"))).items():
            arrays[name] = arrays[name].view(stored)
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{path} is not {what}: {error}") from error
    return arrays, header
