import json

import pytest

from geco_ext.training.models import MODELS
from geco_ext.training.settings import ADDED, MODEL_NAMES, TrainingSettings


def test_settings_survive_json():
    settings = TrainingSettings(model_options={"latent": 4}, constraints=("re=0.1", "pncc=0.9"), size=16, threads=2)
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"batch_size": -1}, "batch size must be an integer of at least 1"),
        ({"learning_rate": 0.0}, "learning rate must be a positive number"),
        ({"learning_rate": float("nan")}, "learning rate must be a positive number"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"multiplier_init": "0"}, "multiplier init must be auto or NUMBER with 0 < NUMBER, got '0'"),
        ({"multiplier_init": "big"}, "multiplier init must be auto or NUMBER"),
        ({"multiplier_init": "nan"}, "multiplier init must be auto or NUMBER"),
        ({"multiplier_bounds": "3"}, "multiplier bounds must be auto or LOW:HIGH with 0 < LOW < HIGH, got '3'"),
        ({"multiplier_bounds": "2:1"}, "multiplier bounds must be auto or LOW:HIGH"),
        ({"multiplier_bounds": "1:inf"}, "multiplier bounds must be auto or LOW:HIGH"),
        (
            {"multiplier_init": "1", "objective": "paper:0.1"},
            "multiplier init cannot be given with the objective 'paper",
        ),
        (
            {"multiplier_bounds": "1:2", "objective": "elbo", "constraints": None},
            "multiplier bounds cannot be given with the objective 'elbo'; only geco, GECOLoss have them",
        ),
        ({"constraints": ()}, "constraint: at least one is needed"),
        ({"batch_size": 5, "devices": 2}, "batch size must be divisible by the 2 devices"),
    ],
)
def test_a_wrong_value_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**changes)


def test_names_of_another_version_are_refused():
    values = TrainingSettings().as_dict()
    del values["steps"]
    with pytest.raises(ValueError, match="differing: steps"):
        TrainingSettings.from_dict(values)


def test_settings_of_an_earlier_version_have_the_defaults():
    values = TrainingSettings().as_dict()
    for name in ADDED:
        del values[name]
    assert TrainingSettings.from_dict(values) == TrainingSettings()


def test_names_of_models_are_known_without_the_models():
    assert tuple(MODELS) == MODEL_NAMES
