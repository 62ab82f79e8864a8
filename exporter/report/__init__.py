"""What a run found out, as `manifest.json` (the contract), `report.html` and a terminal table."""
