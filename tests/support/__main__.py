"""Write reports/support.md and reports/support.csv, as `xai methods --write` does."""

from support.report import PAGE, write

write()
print(f"Wrote {PAGE}")
