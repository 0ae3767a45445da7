"""Training with Lightning: what `geco train` does, callable from Python as well.

The story of a run, from what is asked to what came of it:

- `settings`, `config`; `calls`, `own_code`, `models`, `constraints` and `objectives`: what is asked, and the objects
  made of its texts;
- `run_folder`, `moved` and `run`: where it is kept, its model and criterion, and how it is loaded again;
- `session`: a run put together from all of these, started or resumed;
- `batches`, `training_step`, `callbacks`, `loggers` and `trainer`: its steps, and what happens between them;
- `evaluation`, `report`, `tiles` and `pictures`: what it came to.

`classifier` and `classifier_checkpoint` train and keep the networks of the constraints CLA and FRE. The modules are
imported by name so that reading a run's settings does not pull in Lightning.
"""
