"""Tables of measurements in docs/performance.md, each between two markers that carry its name."""

import pathlib

PAGE = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "performance.md"


def show(name, lines, write):
    """Print a table; if asked, put it into the page."""
    table = "\n".join(lines)
    print(table, flush=True)
    if write:
        text = PAGE.read_text()
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        PAGE.write_text(text[: text.index(begin) + len(begin)] + "\n" + table + "\n" + text[text.index(end) :])
