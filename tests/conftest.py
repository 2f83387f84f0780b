"""Fixtures that all tests share. Imports are late: shape checks hook into them."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden again")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all toy models."""
    from latentbench.conformance import toy

    folder = tmp_path_factory.mktemp("zoo")
    toy.save_pixel(folder / "pixel")
    toy.save_pixel(folder / "pixel_v", "v_prediction")
    toy.save_pixel(folder / "pixel_bare", attention=False)
    toy.save_latent(folder / "latent", "v_prediction")
    toy.save_latent(folder / "latent_eps")
    toy.save_vae(folder / "vae")
    toy.save_gan(folder / "gan")
    toy.save_diffae(folder / "diffae")
    toy.save_infodiffusion(folder / "infodiffusion")
    toy.save_causal(folder / "causal")
    toy.save_soda(folder / "soda")
    toy.save_diffusevae(folder / "diffusevae")
    return folder


@pytest.fixture(scope="session")
def pixel(zoo: Path):
    """An unconditional pixel model, 16 px, epsilon, 5 steps. Shared: leave it as it was."""
    from latentbench.models.pixel_diffusion import PixelDiffusion

    return PixelDiffusion(path=str(zoo / "pixel"), steps=5)


@pytest.fixture(scope="session")
def latent(zoo: Path):
    """A text-conditional latent model, 16 px, v-prediction, 5 steps. Shared: leave it as it was."""
    from latentbench.models.latent_diffusion import LatentDiffusion

    return LatentDiffusion(path=str(zoo / "latent"), steps=5, guidance=3.0)


@pytest.fixture(scope="session")
def vae(zoo: Path):
    """A VAE with a vector code, 16 px. Shared: leave it as it was."""
    from latentbench.models.vae import VariationalAutoencoder

    return VariationalAutoencoder(path=str(zoo / "vae"))


@pytest.fixture(scope="session")
def gan(zoo: Path):
    """A style-based GAN, 16 px. Shared: leave it as it was."""
    from latentbench.models.gan import StyleGAN

    return StyleGAN(path=str(zoo / "gan"))


@pytest.fixture(scope="session")
def diffae(zoo: Path):
    """A diffusion autoencoder, 16 px, 5 steps. Shared: leave it as it was."""
    from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder

    return DiffusionAutoencoder(path=str(zoo / "diffae"), steps=5, prior_steps=5)


@pytest.fixture(scope="session")
def infodiffusion(zoo: Path):
    """A diffusion autoencoder without a code prior, 5 steps. Shared: leave it as it was."""
    from latentbench.models.info_diffusion import InfoDiffusion

    return InfoDiffusion(path=str(zoo / "infodiffusion"), steps=5)


@pytest.fixture(scope="session")
def causal(zoo: Path):
    """A causal diffusion autoencoder: glasses, hat, smile in a chain. Leave it as it was."""
    from latentbench.models.causal_diffusion import CausalDiffusion

    return CausalDiffusion(path=str(zoo / "causal"), steps=5)


@pytest.fixture(scope="session")
def soda(zoo: Path):
    """A diffusion autoencoder whose layers read segments, 5 steps. Leave it as it was."""
    from latentbench.models.soda import SODA

    return SODA(path=str(zoo / "soda"), steps=5)


@pytest.fixture(scope="session")
def diffusevae(zoo: Path):
    """A refined VAE, 16 px, 5 steps. Shared: leave it as it was."""
    from latentbench.models.vae import DiffuseVAE

    return DiffuseVAE(path=str(zoo / "diffusevae"), vae=str(zoo / "vae"), steps=5)


@pytest.fixture(scope="session")
def lcm(zoo: Path):
    """The same components taken for a consistency model, 4 steps. Shared: leave it as it was."""
    from latentbench.models.latent_consistency import LatentConsistency

    return LatentConsistency(path=str(zoo / "latent"), steps=4)


@pytest.fixture
def gaussian():
    """The exact denoiser of Gaussian images, 8 px, 50 steps."""
    from latentbench.conformance import toy

    return toy.GaussianModel()


@pytest.fixture(scope="session", autouse=True)
def no_gradients():
    """No gradients unless a test asks for them, and one CPU thread: tests run side by side."""
    import torch

    torch.set_num_threads(1)
    with torch.no_grad():
        yield


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checks off: for tests of refusals that such a check would make first."""
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
