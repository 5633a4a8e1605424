"""From probability maps and truth to scores, thresholds, tables and the page."""
