"""The charts of a report page; one file per kind of chart."""
