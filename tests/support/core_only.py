"""Makes every package that `pip install .` does not bring unfindable, whatever is installed."""

import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement


def name_of(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()


def brought_by(requirements):
    """The names of distributions that some requirements bring, without extras."""
    found, left = set(), list(requirements)
    while left:
        requirement = Requirement(left.pop())
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and (name := name_of(requirement.name)) not in found:
            found.add(name)
            with suppress(PackageNotFoundError):
                left += requires(name) or []
    return found


class Blind:
    """A finder to which some modules are not there."""

    def __init__(self, finder, modules):
        self.finder, self.modules = finder, modules

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.modules else self.finder.find_spec(name, path, target)


def block_all_but(requirements):
    core = brought_by(requirements)
    modules = {
        module
        for module, distributions in packages_distributions().items()
        if module != "geco_ext" and not {name_of(each) for each in distributions} & core
    }
    sys.meta_path[:] = [Blind(finder, modules) for finder in sys.meta_path]
    return modules
