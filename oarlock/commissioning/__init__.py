"""Commissioning: a model on past patients of a site, before it draws a new one."""
