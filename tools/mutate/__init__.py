"""Mutation testing of the modules in which a wrong sign hurts a patient."""
