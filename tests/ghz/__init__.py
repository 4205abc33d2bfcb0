"""`parley ghz`: runs ghz's configurations where there is no ghz. The *.json files are such, for Parley's services."""
