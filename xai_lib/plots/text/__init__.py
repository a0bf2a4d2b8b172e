"""Texts with scores, as figures, pages, LaTeX and terminal lines."""
