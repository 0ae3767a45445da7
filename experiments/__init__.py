"""Studies that print a table or draw a figure; each is a module to run, ``python -m geco_ext.experiments.<name>``."""
