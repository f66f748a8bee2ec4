"""Cooperative games: what coalitions of an image's parts are worth, and what each part contributes."""
