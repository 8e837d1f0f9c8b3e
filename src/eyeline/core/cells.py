"""Cells of tables that a spreadsheet may open safely."""

#: A cell that begins so would be a formula (CWE-1236).
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(value: object) -> str:
    """The value as text that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(FORMULA) else text
