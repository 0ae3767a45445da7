"""Training with Lightning: what `geco train` does, callable from Python as well.

`session.start` and `session.resume` train; `settings.TrainingSettings` holds what can be chosen. The modules are
imported by name so that reading a run's settings does not pull in Lightning.
"""
