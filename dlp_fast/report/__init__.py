"""report.html: what a run found, for a person to judge. `gather` picks the pictures, `render` writes the page."""
