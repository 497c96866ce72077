"""Data sets, one file each. `streets` needs no download: it draws its pictures."""
