"""From files to cached films: sources, reading, caching, division into parts."""
