"""Every HTML page, card and chart."""
