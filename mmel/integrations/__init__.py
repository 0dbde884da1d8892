"""MMEL inside training loops that others wrote."""
