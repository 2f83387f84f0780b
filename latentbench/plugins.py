"""Third-party methods, models, data sets and metrics: a package announces its folder of yamls.

A package that declares the entry point ``[project.entry-points."latentbench.conf"]`` with value
``acme.conf`` adds ``acme/conf/method/acme.yaml`` to the choices of ``method=``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from latentbench.config import RunConfig
from latentbench.paths import CHECKOUT, on_this_machine, place
from latentbench.plugin_folders import folders

CONF = CHECKOUT / "conf"
EMPTY = "empty"  # a root without choices, to read one option alone


class ConfFolders(SearchPathPlugin):
    """Appends the conf folder of every installed plug-in to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder of each plug-in, in the order of their names."""
        for name, folder in folders().items():
            if folder is not None:
                search_path.append(provider=name, path=f"file://{folder}")


def register() -> None:
    """Make the typed root, all plug-ins and what conf/ calls known to Hydra; again: no change."""
    store = ConfigStore.instance()
    store.store(name="run_config", node=RunConfig)
    store.store(name=EMPTY, node={"defaults": [{"metric": []}, "_self_"]})
    Plugins.instance().register(ConfFolders)
    resolvers = {"checkout": _in_checkout, "on_this_machine": _on_this_machine}
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _on_this_machine(results: object) -> str:
    return str(on_this_machine(place(results, "results.dir")))


def _in_checkout(path: str) -> str:
    return str(CHECKOUT / path)


@contextmanager
def conf() -> Iterator[None]:
    """Compose from conf/ and all plug-ins inside the block, also within a running Hydra job."""
    register()
    state = GlobalHydra.instance()
    running, state.hydra = state.hydra, None
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running  # the one of now: Hydra restores by copies
