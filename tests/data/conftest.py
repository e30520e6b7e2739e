import shutil

import pytest
from toy_dataset import write_dataset


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("template") / "set")


@pytest.fixture
def root(template, tmp_path):
    return shutil.copytree(template, tmp_path / "set").resolve()
