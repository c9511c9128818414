"""Pre-commit check of the files named on the command line: whitespace in text files, and no file above the size limit.

Large weights belong under fromnoise/models, one folder per bundled model; anything else above the limit is a mistake.
"""

import sys
from pathlib import Path

MAX_BYTES = 1_000_000
WEIGHTS = Path("fromnoise/models")


def complaints(path: Path) -> list[str]:
    """What is wrong with one file, in words; empty when nothing is."""
    content = path.read_bytes()
    found = []
    if len(content) > MAX_BYTES and WEIGHTS not in path.parents:
        found.append(f"{path}: {len(content)} bytes, more than {MAX_BYTES}; only {WEIGHTS} may hold large files")
    if b"\0" in content[:8192]:
        return found
    lines = content.split(b"\n")
    found += [f"{path}:{i}: trailing whitespace" for i, line in enumerate(lines, 1) if line != line.rstrip(b" \t\r")]
    if content and (not content.endswith(b"\n") or content.endswith(b"\n\n")):
        found.append(f"{path}:{len(lines)}: must end with exactly one newline")
    return found


def main() -> int:
    """Print every complaint; 1 when there is any."""
    found = [line for name in sys.argv[1:] if Path(name).is_file() for line in complaints(Path(name))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
