"""Landmark localisation from frozen feature maps: reading points, heads, errors, pictures."""
