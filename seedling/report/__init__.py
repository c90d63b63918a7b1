"""All HTML pages, cards and charts."""
