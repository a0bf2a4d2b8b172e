"""Measurements that prove where the embedded models find their evidence; no part of the wheel."""
