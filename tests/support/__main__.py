"""Write reports/support.md and reports/support.csv: `python -m support` in the folder tests."""

from support.report import PAGE, write

write()
print(f"Wrote {PAGE}")
