"""Write a run's results as `manifest.json` (the contract), `report.html` and a terminal table."""
