import pytest

from clay_assets.demo.planet import Planet, make_planet


@pytest.fixture(scope="session")
def planet(tmp_path_factory: pytest.TempPathFactory) -> Planet:
    return make_planet(tmp_path_factory.mktemp("demo") / "planet")
