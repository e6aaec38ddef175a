"""report.html: one self-contained page with the verdict, the numbers and pictures."""

from hierrouter.evaluation.report.page import render_report

__all__ = ["render_report"]
