"""Charts of the report, one file each; all return SVG."""
