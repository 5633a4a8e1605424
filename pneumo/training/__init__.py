"""From cached films to finished weights."""
