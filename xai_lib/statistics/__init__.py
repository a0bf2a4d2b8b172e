"""Metrics, intervals, paired tests, ranks and the tables that are made of them."""
