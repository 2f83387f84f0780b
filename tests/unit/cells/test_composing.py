"""Cells put together from parts are those that Hydra would compose."""

import cells  # noqa: F401  # acme's parts
import pytest
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from latentbench import plugins
from latentbench.cells.composing import cells_of

SWEEPS = {
    "demo": ["sweep=demo", "method=slerp,hspace", "runtime.threads=1"],
    "metrics": ["benchmark=acme,reconstruction", "metric=[psnr,kid]", "metric.kid.seed=3,4"],
    "settings": ["model=acme,faces_ldm", "++model.steps=3,4", "seed=0,1", "++method.images=8"],
    "defaults": ["model=faces_ldm", "results.dir=/tmp/x"],
}


@pytest.mark.parametrize("name", SWEEPS)
def test_they_are_what_hydra_composes(name):
    with plugins.conf():
        found = list(cells_of(["-m", *SWEEPS[name]]))
        assert len({one.words for one in found}) == len(found)
        for one in {0: found[0], 1: found[-1]}.values():
            whole = compose("config", [*one.words], return_hydra_config=True)
            HydraConfig.instance().set_config(whole)
            choices = whole.hydra.runtime.choices
            for group in ("benchmark", "method", "model", "dataset"):
                assert one.names[group] == choices[group]
            for key in one.config:
                assert plain(one.config[key]) == plain(whole[key]), key


def plain(value):
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
